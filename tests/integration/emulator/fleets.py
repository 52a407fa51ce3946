"""Machines that join a server, and releases for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from edgeml_devices.emulator.machine.machine import Machine

from edgeml.bundle import open_bundle, write_bundle
from tests.integration.publish.workshop import Workshop
from tests.integration.server_process import ServerProcess
from tests.unit.core.release_folders import digits
from tests.waiting import eventually

VARIANT = "litert-float32"
HOME = "/var/lib/edgeml"
AS_EDGEML = f"env EDGEML_HOME={HOME} setpriv --reuid edgeml --regid edgeml --clear-groups"


def release(folder: Path, number: int, *, wrong: bool = False, **health: Any) -> Path:
    """Write the digits as a release for the Pi 4; ``wrong``: its outputs are not those that it promises."""
    opened = open_bundle(digits(folder / "plain", number))
    parts = opened.extract(folder / f"parts-{number}")
    manifest = opened.manifest
    (variant,) = (one for one in manifest.variants if one.name == VARIANT)
    assert variant.golden is not None
    if wrong:
        golden = parts / variant.golden.path
        np.savez(golden, scores=np.load(golden)["scores"] + 1)
    variant = replace(variant, targets=("raspberry-pi-4",), golden=replace(variant.golden, sha256=""))
    policy = {"probation_s": 5.0, "selftest_timeout_s": 300.0, **health}
    kept = [*variant.files, *manifest.files, variant.golden]
    made = folder / f"digits-{number}.edgeml"
    write_bundle(
        made,
        replace(manifest, variants=(variant,), health=policy),
        {one.path: parts / one.path for one in kept},
    )
    return made


@dataclass
class Fleet:
    """A server on the host, its operator, and machines that joined."""

    server: ServerProcess
    shop: Workshop
    machines: dict[str, Machine]

    def join(self, name: str, machine: Machine) -> None:
        """Enrol a machine; its agent starts by itself."""
        token = self.shop.ask("tokens", "join")
        url = f"http://host:{urlsplit(self.server.url).port}"
        machine.sh(
            f"{AS_EDGEML} edgeml agent enrol --server {url} --join-token {token['token']} --name {name} "
            f"--root-sha256 {token['root_sha256']}"
        )
        self.machines[name] = machine

    def roll_out(self, number: int) -> dict[str, Any]:
        """Roll a release out to all; give how that ended."""
        made = self.shop.ask(
            *("rollout", "create", f"digits/{number}", "--selector", "", "--wave", "100%"),
            *("--max-failed", "0", "--on-error", "abort", "--start"),
        )
        ended: dict[str, Any] = {}

        def is_over() -> bool:
            ended.update(self.shop.ask("rollout", "show", made["id"], "--devices"))
            return ended["state"] in {"FINISHED", "ABORTED"}

        eventually(is_over, f"release {number} to end", within_s=400)
        return ended

    def running(self) -> set[int | None]:
        """Give the releases that run by what the devices' folders say."""
        found = set()
        for machine in self.machines.values():
            link = machine.sh(f"readlink {HOME}/models/digits/current").strip()
            found.add(int(link.rpartition("/")[2]))
        return found

    def failures(self, number: int) -> set[str]:
        """Give why devices refused a release."""
        found = set()
        for name in self.machines:
            _, answer = self.server.call("GET", f"/v1/devices/{name}/events")
            found |= {
                one["reason"] for one in answer["events"] if one["release"] == number and one.get("reason")
            }
        return found
