"""``agent.toml``: how this device wants its agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from edgeml import typed_json
from edgeml.errors import MessageError, SettingsError
from edgeml.telemetry.device import LEAST_WINDOW_S, MOST_WINDOW_S, WINDOW_S
from edgeml.telemetry.spool import BUDGET_BYTES, LEAST_BUDGET_BYTES
from edgeml.toml_file import read_toml


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Every key of ``agent.toml``; none need stand there."""

    poll_s: float | None = None
    """How long the server may hold a poll; by default as long as the server wishes."""
    bandwidth_bytes_per_s: int | None = None
    """Downloads take no more than this."""
    download_attempts: int = 30
    """In a row, without a byte that came: about two hours by default."""
    slowest_bytes_per_s: int = 64
    """A download slower than this over a minute is begun anew where it stands."""
    reserve_bytes: int = 16 * 1024 * 1024
    """Of disk, kept free when a release is fetched: states must be written on a full disk, too."""
    restart_timeout_s: float = 60.0
    """A command of ``restart`` or ``may_switch`` that takes longer is killed, and counts as failed."""
    python: str = ""
    """Interpreter that runs golden samples, with the engines installed; by default the agent's own."""
    telemetry: bool = True
    """Whether what models did is read, kept and sent."""
    telemetry_window_s: float = WINDOW_S
    telemetry_budget_bytes: int = BUDGET_BYTES
    """Of disk; beyond it windows are merged, then the oldest are given up."""
    telemetry_durability: Literal["window", "relaxed"] = "window"
    """``relaxed`` writes less, and loses up to ten windows in a power cut."""
    restart: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Model to the command that makes its application take up a release; none: it follows by itself."""
    may_switch: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Model to the command that is asked before a switch; another exit code than 0: not now, ask again."""


def read_config(path: Path) -> AgentConfig:
    """Read ``agent.toml``; the defaults where there is none.

    Raises:
        SettingsError: it cannot be read, or holds an unknown key or a value that cannot be.
    """
    if not path.exists():
        return AgentConfig()
    table = read_toml(path, [one.name for one in fields(AgentConfig)], SettingsError)
    try:
        config = typed_json.read(AgentConfig, table, str(path))
    except MessageError as error:
        raise SettingsError(str(error)) from error
    for name in ("poll_s", "bandwidth_bytes_per_s", "download_attempts", "restart_timeout_s"):
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise SettingsError(f"{path}: {name} must be above 0, got {value}")
    _check_telemetry(config, path)
    for name in ("slowest_bytes_per_s", "reserve_bytes"):
        if getattr(config, name) < 0:
            raise SettingsError(f"{path}: {name} must be 0 or more, got {getattr(config, name)}")
    for name in ("restart", "may_switch"):
        for model, argv in getattr(config, name).items():
            if not argv:
                raise SettingsError(f"{path}: {name}.{model} is a list of a command and its arguments")
    return config


def _check_telemetry(config: AgentConfig, path: Path) -> None:
    if not LEAST_WINDOW_S <= config.telemetry_window_s <= MOST_WINDOW_S:
        raise SettingsError(
            f"{path}: telemetry_window_s must be from {LEAST_WINDOW_S:g} to {MOST_WINDOW_S:g}, "
            f"got {config.telemetry_window_s:g}"
        )
    if config.telemetry_budget_bytes < LEAST_BUDGET_BYTES:
        raise SettingsError(
            f"{path}: telemetry_budget_bytes must be {LEAST_BUDGET_BYTES} or more, "
            f"got {config.telemetry_budget_bytes}"
        )
