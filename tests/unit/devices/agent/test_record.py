"""The state file: written whole, read with suspicion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgeml_devices.agent.config import AgentConfig, read_config
from edgeml_devices.agent.disk import write_file
from edgeml_devices.agent.home import state_file
from edgeml_devices.agent.machine import STATES, TRANSITIONS
from edgeml_devices.agent.record import new_record, read_record, write_record
from edgeml_devices.messages import Reason, Result, State
from edgeml_devices.messages import Tested as SelftestFound

from edgeml.errors import MessageError, SettingsError
from edgeml.installed import InstalledModel


@pytest.fixture
def model(tmp_path: Path) -> InstalledModel:
    return InstalledModel(tmp_path, "kws")


def test_a_record_is_read_as_it_was_written(model: InstalledModel) -> None:
    record = replace(
        new_record("kws"),
        state=State.PROBATION,
        target=5,
        attempt=2,
        previous=4,
        manifests={"4": "a" * 64, "5": "b" * 64},
        candidates=("litert-float32",),
        tested={"litert-float32": SelftestFound(True, p50_ms=1.5)},
        result=Result.SUCCESSFUL,
        reason=Reason.CLOCK,
        failed={"3": 1},
    )
    write_record(model, record)
    assert read_record(model) == record
    assert record.manifest_sha256 == "b" * 64


def test_a_model_without_a_record_has_none(model: InstalledModel) -> None:
    assert read_record(model) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\0" * 100,
        b'{"model": "kws", "state": "ELSEWHERE"}',
        b'{"model": "vww", "state": "IDLE"}',
    ],
)
def test_a_damaged_or_foreign_record_is_refused(model: InstalledModel, content: bytes) -> None:
    write_record(model, new_record("kws"))
    state_file(model).write_bytes(content)
    with pytest.raises(MessageError):
        read_record(model)


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / ("n" * 252)
    place.write_bytes(b"before")  # a name that leaves no room for the scratch file's
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's business
        write_file(place, b"after")
    assert place.read_bytes() == b"before"


def test_every_state_has_its_work_and_its_ways_out() -> None:
    assert STATES.keys() == TRANSITIONS.keys() == set(State)
    live = {State.SWITCHING, State.PROBATION, State.ROLLING_BACK}
    for state in live:
        # what has switched never fails without going back first
        assert State.FAILED not in TRANSITIONS[state] or state is State.ROLLING_BACK
    assert {state for state, ways in TRANSITIONS.items() if State.COMMITTED in ways} == {
        State.ACCEPTED,
        State.SWITCHING,
        State.PROBATION,
    }


# --- agent.toml


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert read_config(tmp_path / "agent.toml") == AgentConfig()


def test_commands_are_lists(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('bandwidth_bytes_per_s = 50000\n[restart]\nkws = ["systemctl", "restart", "kws"]\n')
    config = read_config(file)
    assert config.bandwidth_bytes_per_s == 50_000
    assert config.restart == {"kws": ("systemctl", "restart", "kws")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pol_s = 5", "unknown key 'pol_s'"),
        ('poll_s = "5"', "poll_s: must be a number"),
        ("download_attempts = 0", "must be above 0"),
        ("reserve_bytes = -1", "must be 0 or more"),
        ('[restart]\nkws = "reboot"', "must be a list"),
        ("[restart]\nkws = []", "a list of a command"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_config(file)
