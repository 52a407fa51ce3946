"""The same install over a real SSH server and over a serial console with a busybox behind it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from edgeml.testing.serial_lines import Noise
from tests.conftest import require
from tests.integration.install.releases import NAME, bytes_bundle, is_whole
from tests.integration.transports.serial_line import SerialLine
from tests.integration.transports.ssh_server import ssh_server

OPTIONS = ["--self-test", "test -s {folder}/manifest.json", "--check", "true", "--probation", "0", "--json"]


@pytest.fixture
def bundles(tmp_path: Path) -> dict[int, Path]:
    return {number: bytes_bundle(tmp_path / "bundles", number, size_bytes=20_000) for number in (1, 2)}


def _installs_and_goes_back(
    run: Callable[..., Result], url: str, home: Path, bundles: dict[int, Path]
) -> None:
    for number in (1, 2):
        result = run("deploy", bundles[number], "--to", url, "--home", home, *OPTIONS)
        said = json.loads(result.stdout)["devices"][0]
        assert (result.exit_code, said["result"], said["detail"]) == (0, "SUCCESSFUL", "")
        assert (said["url"], said["running"], said["sent_bytes"] > 20_000) == (url, number, True)
        assert is_whole(home) == number
    result = run("deploy", "--rollback", NAME, "--to", url, "--home", home, *OPTIONS)
    assert (result.exit_code, is_whole(home)) == (0, 1)
    listed = run("deploy", "--list", "--to", url, "--home", home, "--json")
    model = json.loads(listed.stdout)["devices"][0]["models"][0]
    assert (model["running"], model["previous"], model["state"]) == (1, 2, "COMMITTED")


def test_over_ssh(run: Callable[..., Result], home: Path, bundles: dict[int, Path], tmp_path: Path) -> None:
    (tmp_path / "ssh").mkdir()
    with ssh_server(tmp_path / "ssh") as server:
        _installs_and_goes_back(run, server.url, home, bundles)


def test_over_a_serial_line_on_which_the_kernel_talks_too(
    run: Callable[..., Result], home: Path, bundles: dict[int, Path], tmp_path: Path
) -> None:
    require(shutil.which("busybox"), "busybox is not installed")
    (tmp_path / "line").mkdir()
    line = SerialLine(tmp_path / "line", ["busybox", "sh"], noise=Noise(messages_per_byte=0.0005))
    try:
        _installs_and_goes_back(run, line.url, home, bundles)
    finally:
        line.close()


def test_many_devices_at_once_each_with_its_own_outcome(
    run: Callable[..., Result], home: Path, bundles: dict[int, Path], tmp_path: Path
) -> None:
    (tmp_path / "ssh").mkdir()
    with ssh_server(tmp_path / "ssh") as server:
        # one machine by three names has one home: the first to lock it installs
        urls = [server.url, f"ssh://nobody@127.0.0.1:{server.port}", "local:"]
        to = [word for url in urls for word in ("--to", url)]
        result = run("deploy", bundles[1], *to, "--home", home, "--parallel", 1, *OPTIONS)
    found = {one["url"]: one for one in json.loads(result.stdout)["devices"]}
    assert list(found) == urls
    assert [found[url]["result"] for url in urls] == ["SUCCESSFUL", "FAILED_NO_STATE_CHANGE", "SUCCESSFUL"]
    assert found[urls[1]]["reason"] == "network"
    assert found["local:"]["detail"] == "it was there already"
    assert result.exit_code == 1
