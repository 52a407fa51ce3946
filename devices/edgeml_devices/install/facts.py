"""What a device is, asked over a transport: what the choice of a variant needs, with edgeml there or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeml.choice import Choice, choose, fitting
from edgeml.cpu import ARCHITECTURES, parse_cpuinfo
from edgeml.errors import EdgemlError, MessageError, UsageError
from edgeml.manifest import Manifest, Variant
from edgeml.targets import Target, describe, target_from_json
from edgeml_devices.install.device import Device, Reply
from edgeml_devices.install.words import StepError
from edgeml_devices.messages import Reason

DOCTOR_TIMEOUT_S: Final = 300.0
"""It imports every engine in a process of its own; a small board takes its time."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One device, as it says of itself."""

    target: Target
    engines: Mapping[str, str] | None
    """Runtime name to the version of its engine; ``None``: edgeml is not there to tell."""
    edgeml: str | None
    """Path of the command ``edgeml`` on the device."""
    system: str
    is_root: bool
    has_systemd: bool
    free_bytes: int


def ask_facts(device: Device) -> DeviceFacts:
    """Ask the device, and edgeml on it if it is there.

    Raises:
        StepError, TransportError: as of :meth:`Device.call`.
    """
    reply = device.call("facts")
    edgeml = reply.first("edgeml") or None
    engines = None if edgeml is None else _engines(device, edgeml)
    target = None if edgeml is None else _own_target(device, edgeml)
    system = " · ".join(filter(None, (reply.first("distribution"), reply.first("system"))))
    return DeviceFacts(
        target=target or _target(reply),
        engines=engines,
        edgeml=edgeml,
        system=system,
        is_root=reply.first("uid") == "0",
        has_systemd=bool(reply.first("systemd")),
        free_bytes=(reply.number("free_kib") or 0) * 1024,
    )


def choose_variant(manifest: Manifest, facts: DeviceFacts, variant: str | None) -> Choice:
    """Choose what the device is to run.

    Args:
        manifest: of the bundle.
        facts: of the device.
        variant: take this one, whatever it was made for.

    Raises:
        UsageError: the bundle has no such variant.
        StepError: nothing in the bundle can run there.
    """
    try:
        if facts.engines is None or variant is not None:
            return choose(manifest, facts.target, lambda one: _lacking(one, facts), variant=variant)[0]
        return fitting(manifest, facts.target, facts.engines)[0]
    except UsageError:
        raise
    except EdgemlError as error:
        raise StepError(Reason.INCOMPATIBLE, str(error)) from error


def _lacking(variant: Variant, facts: DeviceFacts) -> str | None:
    """Say what is missing for a variant; a device without edgeml is asked by the self-test only."""
    if facts.engines is None or variant.runtime in facts.engines:
        return None
    return f"{variant.runtime} is not installed there"


def _target(reply: Reply) -> Target:
    machine = reply.first("machine")
    cpu = parse_cpuinfo(
        "\n".join(reply.all("cpuinfo")), ARCHITECTURES.get(machine, machine), reply.number("cores") or 1
    )
    return describe(cpu, reply.first("board"), (reply.number("memory_kib") or 0) * 1024)


def _own_target(device: Device, edgeml: str) -> Target | None:
    answer = _ask_edgeml(device, edgeml, "targets", "host", "--json")
    try:
        return target_from_json(answer["targets"][0], "edgeml targets host --json")
    except (KeyError, IndexError, TypeError, MessageError):
        return None


def _engines(device: Device, edgeml: str) -> Mapping[str, str] | None:
    """Give the engines that work there; ``None`` when edgeml itself does not."""
    answer = _ask_edgeml(device, edgeml, "doctor", "--json")
    try:
        return {
            check["name"]: check["detail"].partition(",")[0]
            for check in answer["checks"]
            if check["group"] == "runtime" and check["status"] == "ok"
        }
    except (KeyError, TypeError, AttributeError):
        return None


def _ask_edgeml(device: Device, edgeml: str, *arguments: str) -> Any:
    done = device.transport.run([edgeml, *arguments], DOCTOR_TIMEOUT_S)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {}
