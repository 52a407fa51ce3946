"""A device joins its server once, whatever is lost, and says what to do when it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.agent.fixture_server import Server, serving
from tests.integration.agent.processes import Device
from tests.integration.agent.tiny_repository import TinyRepository, sha256_of


def test_a_lost_answer_to_an_enrolment_makes_no_second_device(
    fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "new", fleet[1])
    fleet[0].lost_answers = 1
    root = repository_here.first_root
    first = device.enrol(root, check=False)
    assert first.returncode == 1
    assert "run the command again" in first.stderr
    device.enrol(root)
    assert len(fleet[0].tokens) == 1
    assert (device.home / "identity.json").stat().st_mode & 0o777 == 0o600
    assert device.status()["device_id"] == "device-1"


def test_another_name_for_a_device_that_has_joined_is_not_taken_in_silence(
    fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "new", fleet[1])
    root = repository_here.first_root
    assert "not taken" not in device.enrol(root, "--name", "hall-2").stderr
    again = device.enrol(root, "--name", "hall-3")
    assert "knows this device as hall-2, not as hall-3" in again.stderr
    assert device.status()["name"] == "hall-2"


def test_a_join_token_that_is_refused_is_not_to_be_tried_again(
    fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "new", fleet[1])
    refused = device.enrol(repository_here.first_root, "--join-token", "used", check=False)
    assert refused.returncode == 1
    assert "ask for a new one" in refused.stderr
    assert "again" not in refused.stderr


def test_a_device_that_was_retired_says_so_until_it_joins_again(device: Device, fleet: Server) -> None:
    device.start()
    fleet[0].assign("times", 1)
    fleet[0].wait_for_state("times", "COMMITTED", 1)
    (token,) = fleet[0].tokens
    del fleet[0].tokens[token]
    fleet[0].unassign("times")  # lets the poll end
    device.wait(lambda: device.status()["refused"] is not None)
    assert "no longer knows this device" in device.command("status").stdout
    assert device.current("times") == "releases/1"
    fleet[0].tokens[token] = "device-1"
    device.wait(lambda: device.status()["refused"] is None)


@pytest.mark.parametrize("command", ["status", "run", "enrol"])
def test_a_home_that_is_a_file_is_named(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("mine")
    more = ["--server", "http://127.0.0.1:9", "--join-token", "x", "--trust-first-root"]
    device = Device(tmp_path / "file", "")
    done = device.command(command, *(more if command == "enrol" else []), check=False)
    assert done.returncode == 2
    assert "is no folder" in done.stderr.replace("\n", " ")


def test_the_first_root_is_held_to_its_hash(
    fleet: Server, repository_here: TinyRepository, tmp_path: Path
) -> None:
    device = Device(tmp_path / "new", fleet[1])
    arguments = ("enrol", "--server", fleet[1], "--join-token", "join")
    assert "--root-sha256" in device.command(*arguments, check=False).stderr
    other = device.command(*arguments, "--root-sha256", "0" * 64, check=False)
    assert other.returncode == 1
    assert "another repository" in other.stderr.replace("\n", " ")
    assert fleet[0].tokens == {}
    device.command(*arguments, "--root-sha256", sha256_of(repository_here.first_root))
    assert len(fleet[0].tokens) == 1


def test_a_device_that_is_not_enrolled_says_what_to_do(tmp_path: Path) -> None:
    done = Device(tmp_path / "new", "").command("run", check=False)
    assert done.returncode == 2
    assert "edgeml agent enrol" in done.stderr


def test_it_works_through_a_proxy_of_the_environment(
    repository_here: TinyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forward proxy gets absolute URLs; the fixture server answers those of any host."""
    with serving(repository_here.folder) as (fleet, url):
        device = Device(tmp_path / "behind", "http://fleet.invalid")
        monkeypatch.setenv("http_proxy", url)
        device.enrol(repository_here.first_root)
        assert list(fleet.tokens.values()) == ["device-1"]
        assert fleet.requests[0][1] == "http://fleet.invalid/v1/enrol"
