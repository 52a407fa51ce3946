"""``telemetry_*`` in agent.toml."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.agent.config import read_config

from edgeml.errors import SettingsError


def test_telemetry_is_on_with_a_window_of_a_minute(tmp_path: Path) -> None:
    config = read_config(tmp_path / "agent.toml")
    assert (config.telemetry, config.telemetry_window_s, config.telemetry_budget_bytes) == (True, 60, 4194304)


def test_what_is_said_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("telemetry = false\ntelemetry_window_s = 10\ntelemetry_durability = 'relaxed'\n")
    config = read_config(path)
    assert (config.telemetry, config.telemetry_window_s, config.telemetry_durability) == (
        False,
        10,
        "relaxed",
    )


@pytest.mark.parametrize(
    "line",
    [
        "telemetry_window_s = 0.5",
        "telemetry_window_s = 3601",
        "telemetry_window_s = nan",
        "telemetry_budget_bytes = 1000",
        "telemetry_durability = 'none'",
        "telemetry = 1",
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f"{line}\n")
    with pytest.raises(SettingsError, match=line.partition(" ")[0]):
        read_config(path)
