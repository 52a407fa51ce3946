"""``edgeml rollout plan --emulate``: a published release on emulated boards before a rollout begins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.bundle import open_bundle
from edgeml.targets import target, target_to_json
from tests.integration.agent.bundles import scaled
from tests.integration.publish.workshop import Workshop
from tests.integration.server_process import ServerProcess
from tests.integration.telemetry.senders import enrolled

pytestmark = pytest.mark.usefixtures("full_image", "built_cache")
ENGINES = {"onnxruntime": "1.20.0"}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    """Release 1 is sound, 2 gives other outputs than it promises; a Pi 4 and an x86 are there for them."""
    with ServerProcess(tmp_path / "server") as server:
        shop = Workshop(tmp_path / "workshop", server.url, server.admin_token, "times")
        shop.do("repo", "init")
        shop.do("publish", scaled(tmp_path / "bundles", 1))
        shop.do("publish", scaled(tmp_path / "bundles", 2, golden_factor=5.0))
        for name, kind in (("hall-1", "raspberry-pi-4"), ("desk", "x86-64-v3")):
            enrolled(server, name, target=target_to_json(target(kind)), engines=ENGINES)
        yield shop


PLAN = ("rollout", "plan", "--selector", "", "--wave", "100%", "--emulate", "--mode", "user")


def test_a_sound_release_passes_on_each_kind_of_board_that_there_is(shop: Workshop) -> None:
    said = shop.ask(*PLAN, "times/1")
    assert said["targets"] == {"raspberry-pi-4": 1, "x86-64-v3": 1}
    (board,) = said["emulated"]
    assert (board["board"], board["result"], board["verified"]) == (
        "raspberry-pi-4",
        "SUCCESSFUL",
        "selftest",
    )
    assert said["not_emulated"] == ["x86-64-v3"]


def test_a_release_that_gives_wrong_outputs_there_holds_the_rollout_back(shop: Workshop) -> None:
    done = shop.run(*PLAN, "times/2")
    assert done.exit_code == 3, done.output
    assert "raspberry-pi-4" in done.stdout
    assert "parity" in done.stdout
    assert "not emulated: x86-64-v3" in done.stdout


def test_a_release_is_fetched_as_the_bundle_that_was_published(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "fetched").mkdir()
    said = json.loads(shop.do("releases", "fetch", "times", 1, "-o", tmp_path / "fetched", "--json"))
    fetched, published = open_bundle(Path(said["bundle"])), tmp_path / "bundles" / "times-1.edgeml"
    fetched.verify()
    assert fetched.manifest == open_bundle(published).manifest
    assert Path(said["bundle"]).read_bytes() == published.read_bytes()
