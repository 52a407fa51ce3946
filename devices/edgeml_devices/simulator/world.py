"""What all devices of a run share: where the server is, what they are asked to do, and what time it is."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgeml_devices.messages import Facts, Reason, Result
from edgeml_devices.simulator.connection import Endpoint
from edgeml_devices.simulator.plan import PlannedDevice, outcome
from edgeml_devices.simulator.scenario import Rollout, Scenario

CONNECTING_AT_ONCE: Final = 100
UNMANAGED: Final = "simulated"
"""The model that telemetry is of where the scenario rolls nothing out."""
FACTS: Final = Facts(
    target={
        "name": "raspberry-pi-4",
        "title": "Raspberry Pi 4 Model B Rev 1.4",
        "architecture": "aarch64",
        "cores": 4,
        "cpu_features": ["asimd", "crc32", "fp"],
        "memory_bytes": 4 << 30,
        "runtimes": ["litert", "onnxruntime", "openvino"],
    },
    engines={"litert": "2.3.0", "onnxruntime": "1.31.1", "openvino": "2026.4.1"},
    edgeml="0.1.0",
    python="3.11.7",
)


@dataclass(frozen=True, slots=True)
class File:
    """A file of a release."""

    path: str
    """Of the call that gives it."""
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Release:
    """What a device fetches and runs of a release."""

    variant: str = "litert-float32"
    files: tuple[File, ...] = ()
    """The manifest first."""


@dataclass(slots=True)
class World:
    """One run. Only the clock and the counters change."""

    scenario: Scenario
    endpoint: Endpoint
    run: str
    """A random name: the value of the label that all its devices have."""
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    """Devices' tokens are made of it: not of the seed, which anybody may know."""
    releases: Mapping[tuple[str, int], Release] = field(default_factory=dict)
    """By model and number."""
    refused: Counter[str] = field(default_factory=Counter)
    """What the server answered that is no good, and how often; each was tried again."""
    lost: int = 0
    """Requests without an answer, most of them because the scenario has it so."""
    downloaded_bytes: int = 0
    began: float = 0.0
    """By the event loop's clock."""
    began_at: float = 0.0
    """Unix seconds."""
    connecting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTING_AT_ONCE))
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """Start the clock."""
        self.began, self.began_at = asyncio.get_running_loop().time(), time.time()

    @property
    def now_s(self) -> float:
        """Seconds since the run began."""
        return asyncio.get_running_loop().time() - self.began

    @property
    def telemetry_model(self) -> str:
        rollouts = self.scenario.rollouts
        return rollouts[0].model if rollouts else UNMANAGED

    def ends_as(self, device: PlannedDevice, model: str, release: int) -> tuple[Result, Reason | None]:
        """Give how a release ends on a device."""
        for place, one in enumerate(self.scenario.rollouts):
            if (one.model, one.release) == (model, release):
                return outcome(device, one, place)
        return outcome(device, Rollout(model, release), -release)

    def release(self, model: str, release: int) -> Release:
        """Give what is known of a release."""
        return self.releases.get((model, release), Release())
