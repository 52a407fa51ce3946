"""`edgeml deploy` onto a device with edgeml: tested by golden samples, switched to, kept or rolled back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import edgeml
from edgeml.installed import InstalledModel, read_installation
from tests.conftest import require
from tests.integration.install.conftest import Deploy
from tests.integration.install.releases import NAME, bytes_bundle, is_whole, model_bundle

pytestmark = pytest.mark.usefixtures("provisioned")
AGENT = 12345
"""A user who is not this one."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Releases of a model; the golden samples of release 3 are not what it calculates."""
    folder = tmp_path_factory.mktemp("bundles")
    return {number: model_bundle(folder, number, off=1.0 if number == 3 else 0.0) for number in (1, 2, 3)}


def test_a_release_is_tested_on_the_device_and_committed(
    deploy: Deploy, home: Path, bundles: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = deploy(bundles[1])
    assert (code, said["result"], said["reason"]) == (0, "SUCCESSFUL", None)
    assert (said["release"], said["running"], said["previous"]) == (1, 1, None)
    assert (said["variant"], said["verified"]) == ("litert-float32", "selftest")
    assert is_whole(home) == 1
    model = InstalledModel(home, NAME)
    assert (model.releases / "1.committed").exists()
    measured = read_installation(model.release_folder(1)).measured["litert-float32"]
    assert measured == said["measured"]
    assert set(measured) == {"p50_ms", "p95_ms", "p99_ms", "load_ms", "peak_memory_bytes"}
    assert {path.stat().st_mode & 0o777 for path in (home / "blobs" / "sha256").iterdir()} == {0o444}
    monkeypatch.setenv("EDGEML_HOME", str(home))
    with edgeml.load(NAME) as loaded:
        assert loaded(np.ones((1, 16), np.float32)).tolist() == [[2.0] * 16]


def test_only_what_is_missing_is_sent_and_the_previous_release_stays(
    deploy: Deploy, home: Path, bundles: dict[int, Path]
) -> None:
    _, first = deploy(bundles[1])
    _, second = deploy(bundles[2])
    # the model and the golden samples are shared
    assert 0 < second["sent_bytes"] < first["sent_bytes"]
    assert (second["running"], second["previous"]) == (2, 1)
    assert InstalledModel(home, NAME).folder.joinpath("previous").readlink() == Path("releases/1")
    _, again = deploy(bundles[2])
    assert (again["result"], again["sent_bytes"], again["detail"]) == (
        "SUCCESSFUL",
        0,
        "it was there already",
    )


def test_a_release_that_fails_its_golden_samples_never_runs(
    deploy: Deploy, home: Path, bundles: dict[int, Path]
) -> None:
    deploy(bundles[2])
    code, said = deploy(bundles[3])
    assert (code, said["result"], said["reason"]) == (3, "FAILED_NO_STATE_CHANGE", "parity")
    assert "off by 1" in said["detail"]
    assert is_whole(home) == said["running"] == 2
    assert not InstalledModel(home, NAME).release_folder(3).exists()
    manifests = {
        path.read_bytes() for path in (home / "blobs" / "sha256").iterdir() if path.stat().st_size > 500
    }
    assert not any(b'"release": 3' in text for text in manifests)


def test_the_release_before_can_be_gone_back_to_by_hand(
    deploy: Deploy, home: Path, bundles: dict[int, Path]
) -> None:
    deploy(bundles[1])
    code, said = deploy("--rollback", NAME)
    assert (code, said["reason"]) == (1, "unknown_release")
    deploy(bundles[2])
    code, said = deploy("--rollback", NAME)
    assert (code, said["running"], said["previous"], said["verified"]) == (0, 1, 2, "selftest")
    assert is_whole(home) == 1
    code, said = deploy("--rollback", NAME)
    assert (code, said["running"], is_whole(home)) == (0, 2, 2)


def test_what_an_agent_installed_is_taken_over_and_can_be_gone_back_to(
    deploy: Deploy, home: Path, bundles: dict[int, Path], tmp_path: Path
) -> None:
    deploy(bundles[1])
    # an agent's home has no list of the installer's
    for file in InstalledModel(home, NAME).folder.joinpath("deploy").iterdir():
        file.unlink()
    InstalledModel(home, NAME).folder.joinpath("deploy.state").unlink()
    code, said = deploy(bundles[2], "--restart", "false")
    assert (code, said["result"], said["reason"]) == (1, "FAILED_UNABLE_TO_ROLLBACK", "restart_failed")
    assert is_whole(home) == said["running"] == 1


def test_what_root_installs_in_the_home_of_another_user_is_that_users(
    deploy: Deploy, home: Path, bundles: dict[int, Path]
) -> None:
    require(os.getuid() == 0, "only root may give files away")
    home.mkdir()
    os.chown(home, AGENT, AGENT)
    assert deploy(bundles[1])[0] == 0
    made = [home / "agent.lock", *(path for part in ("models", "blobs") for path in (home / part).rglob("*"))]
    assert {path.lstat().st_uid for path in made} == {AGENT}


def test_a_variant_that_cannot_run_there_is_refused_before_anything_is_sent(
    deploy: Deploy, home: Path, tmp_path: Path
) -> None:
    from edgeml.manifest import Needs

    bundle = bytes_bundle(tmp_path, 1, variants={"litert-float32": Needs(accelerator="edgetpu")})
    code, said = deploy(bundle)
    assert (code, said["result"], said["reason"]) == (1, "FAILED_NO_STATE_CHANGE", "incompatible")
    assert "edgetpu" in said["detail"]
    assert not (home / "models").exists() or not any((home / "models").iterdir())


def test_what_is_installed_is_listed(
    deploy: Deploy, run: Callable[..., Result], home: Path, bundles: dict[int, Path]
) -> None:
    result = run("deploy", "--list", "--to", "local:", "--home", home)
    assert "no model is installed" in result.stdout
    deploy(bundles[1])
    deploy(bundles[2])
    result = run("deploy", "--list", "--to", "local:", "--home", home)
    assert result.stdout.splitlines()[1].split() == [
        "local:",
        NAME,
        "2",
        "1",
        "litert-float32",
        "2:",
        "COMMITTED",
    ]
    said = json.loads(run("deploy", "--list", "--to", "local:", "--home", home, "--json").stdout)
    model = said["devices"][0]["models"][0]
    assert (model["name"], model["running"], model["previous"], model["state"]) == (NAME, 2, 1, "COMMITTED")
