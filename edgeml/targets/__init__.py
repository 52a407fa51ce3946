"""Targets: named hardware profiles, and the profile of the machine that this runs on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from edgeml import cpu as cpus
from edgeml.edgetpu import ACCELERATOR, edge_tpus
from edgeml.errors import MessageError, UsageError
from edgeml.settings import settings
from edgeml.toml_file import read_toml
from edgeml.words import RUNTIMES, RuntimeName

HOST: Final = "host"
"""The name that stands for this machine wherever a target is asked for."""
VARIABLE: Final = "EDGEML_TARGET"
"""Declares what this machine is, where it cannot be seen (an emulated board)."""
X86_CLASSES: Final = ("x86-64-amx", "x86-64-vnni", "x86-64-v3", "x86-64-v2")
"""From the most to the least able."""
SUFFIX: Final = ".toml"


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of machine that variants are made for."""

    name: str
    title: str
    architecture: str
    """``aarch64`` or ``x86_64``."""
    cores: int
    cpu_features: frozenset[str]
    """What the CPU has, as spelled in ``/proc/cpuinfo``; and ``vnni``, see ``edgeml.cpu``."""
    memory_bytes: int
    """What a variant may count on: of boards sold in several sizes, a small one."""
    runtimes: tuple[RuntimeName, ...]
    accelerators: tuple[str, ...] = ()
    """``edgetpu``."""
    cpu: str = ""
    """Name of the core: ``Cortex-A72``."""
    word_bits: int = 64
    operating_system: str = "linux"
    boards: tuple[str, ...] = ()
    """How the device tree's model begins on such a machine."""
    notes: tuple[str, ...] = ()

    def lacking(self, machine: Target) -> frozenset[str]:
        """List the CPU features that this target has and ``machine`` lacks."""
        return self.cpu_features - machine.cpu_features

    def is_like(self, machine: Target) -> bool:
        """Say whether figures measured on ``machine`` speak for this target.

        The named class must be the same: a faster CPU of the same architecture runs the same file and
        says nothing of the latency here.
        """
        return self.architecture == machine.architecture and self.name == machine.name

    def runs_on(self, machine: Target) -> bool:
        """Say whether what was made for this target can run on ``machine``."""
        return (
            self.architecture == machine.architecture
            and not self.lacking(machine)
            and set(self.accelerators) <= set(machine.accelerators)
        )


def targets() -> tuple[Target, ...]:
    """Give every named target, those of the user included (theirs win by name), sorted by name.

    Raises:
        UsageError: a file of the user's holds something wrong.
    """
    found = dict(_shipped()) | {name: read_target(path) for name, path in _own_files().items()}
    return tuple(found[name] for name in sorted(found))


def target(name: str) -> Target:
    """Give a target by name, by the path of a TOML file, or ``host`` for this machine.

    Raises:
        UsageError: no such target (names the known ones), or a file that holds something wrong.
    """
    if name == HOST:
        return host()
    if name.endswith(SUFFIX) or os.sep in name:
        return read_target(Path(name))
    found = named_target(name)
    if found is None:
        known = ", ".join([HOST, *sorted({*_shipped(), *_own_files()})])
        own = user_folder() / f"{name}{SUFFIX}"
        raise UsageError(f"no target {name!r}; known: {known}. Your own: a path to a TOML file, or {own}")
    return found


def named_target(name: str) -> Target | None:
    """Give a target by its name alone; ``None`` if there is none.

    For names that come out of a bundle: they must neither lead to a file elsewhere nor stand for the
    machine that reads them.

    Raises:
        UsageError: the user's file of that name holds something wrong.
    """
    own = _own_files()
    return read_target(own[name]) if name in own else _shipped().get(name)


def host() -> Target:
    """Give the profile of this machine: its class by name, and what it really has.

    The name is the class that it belongs to (``raspberry-pi-4``, ``x86-64-vnni``), so that figures
    and variants that are made here say something elsewhere; ``EDGEML_TARGET`` declares another. It has the
    accelerators of its class, and an Edge TPU that is attached.
    """
    found = describe(cpus.cpu(), cpus.board(), cpus.memory_bytes() or 0, os.environ.get(VARIABLE, ""))
    if ACCELERATOR in found.accelerators or not edge_tpus():
        return found
    return replace(found, accelerators=(*found.accelerators, ACCELERATOR))


def describe(found: cpus.Cpu, board: str, memory_bytes: int, declared: str = "") -> Target:
    """Give the profile of a machine with this CPU, board name and memory.

    Raises:
        UsageError: ``declared`` is not a target.
    """
    kind = target(declared) if declared and declared != HOST else _class_of(found, board)
    own = Target(
        name=kind.name if kind else found.architecture,
        title=board or found.model or found.architecture,
        architecture=found.architecture,
        cores=found.cores,
        cpu_features=found.features,
        memory_bytes=memory_bytes,
        runtimes=RUNTIMES,
        cpu=found.model,
    )
    if kind is None:
        return own
    return replace(own, runtimes=kind.runtimes, accelerators=kind.accelerators, boards=kind.boards)


def target_to_json(machine: Target) -> dict[str, Any]:
    """Give a target as what ``json`` can write."""
    from edgeml import typed_json  # `edgeml.load` needs a target, and no JSON

    return typed_json.write(machine) | {"cpu_features": sorted(machine.cpu_features)}


def target_from_json(data: object, where: str) -> Target:
    """Read what :func:`target_to_json` gave, on this or another version of edgeml.

    Raises:
        MessageError: a field is missing or of a wrong type.
    """
    from edgeml import typed_json  # as above

    found = typed_json.read(Target, data, where)
    features: object = found.cpu_features  # a list still
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise MessageError(f"{where}: cpu_features: must be a list of texts")
    return replace(found, cpu_features=frozenset(features))


def user_folder() -> Path:
    """Give the folder of the user's own targets: ``targets`` in ``EDGEML_HOME``."""
    return settings().home / "targets"


def _own_files() -> Mapping[str, Path]:
    return {path.stem: path for path in sorted(user_folder().glob(f"*{SUFFIX}"))}


def read_target(path: Path) -> Target:
    """Read a target's TOML file; its name is the file's.

    Raises:
        UsageError: missing, not TOML, an unknown or missing key, a value of another kind.
    """
    table = read_toml(path, [f.name for f in fields(Target) if f.name != "name"])
    for key in ("title", "architecture", "cores", "cpu_features", "memory_bytes", "runtimes"):
        if key not in table:
            raise UsageError(f"{path}: needs {key}")
    values = {key: _value(key, value, path) for key, value in table.items()}
    foreign = [name for name in values["runtimes"] if name not in RUNTIMES]
    if foreign:
        raise UsageError(f"{path}: unknown runtime {foreign[0]!r}; known: {', '.join(RUNTIMES)}")
    return Target(name=path.stem, **values)


def _value(key: str, value: Any, path: Path) -> Any:
    if key in {"cores", "memory_bytes", "word_bits"}:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        wanted = "a whole number above 0"
    elif key in {"title", "architecture", "cpu", "operating_system"}:
        if isinstance(value, str):
            return value
        wanted = "a text"
    else:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return frozenset(value) if key == "cpu_features" else tuple(value)
        wanted = "a list of texts"
    raise UsageError(f"{path}: {key} needs {wanted}, got {value!r}")


@cache
def _shipped() -> Mapping[str, Target]:
    here = Path(__file__).parent
    return {path.stem: read_target(path) for path in sorted(here.glob(f"*{SUFFIX}"))}


def _class_of(found: cpus.Cpu, board: str) -> Target | None:
    shipped = _shipped()
    named = [
        (len(start), kind) for kind in shipped.values() for start in kind.boards if board.startswith(start)
    ]
    if named:
        return max(named, key=lambda pair: pair[0])[1]
    for name in X86_CLASSES:
        kind = shipped[name]
        if kind.architecture == found.architecture and kind.cpu_features <= found.features:
            return kind
    return None
