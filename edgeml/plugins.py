"""Drivers by name: finds entry points, imports only the one that is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from edgeml import cpu
from edgeml.errors import EngineMissingError, UsageError
from edgeml.words import RUNTIMES

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from edgeml.converter import ConversionStep
    from edgeml.runtime import Runtime
    from edgeml.transport import Transport

RUNTIME_GROUP: Final = "edgeml.runtimes"
"""``litert = edgeml_runtimes.litert:LiteRT``: a class whose constructor takes nothing."""
CONVERTER_GROUP: Final = "edgeml.converters"
"""``onnx = edgeml_converters.steps.onnx:STEPS``: a tuple of conversion steps."""
TRANSPORT_GROUP: Final = "edgeml.transports"
"""``local = edgeml_devices.transports.local:LocalTransport``: a class that takes the URL."""
COMMAND_GROUP: Final = "edgeml.commands"
"""``bench = edgeml_runtimes.cli:bench``: a click command."""


def names(group: str) -> tuple[str, ...]:
    """List what is registered in an entry-point group, sorted."""
    return tuple(sorted({entry.name for entry in _entries(group)}))


def load(group: str, name: str) -> Any:
    """Import one driver.

    Raises:
        UsageError: nothing of that name is registered.
        EngineMissingError: the driver's engine is not installed, or lacks a library; says how to install it.
    """
    found = [entry for entry in _entries(group) if entry.name == name]
    if not found:
        known = ", ".join(names(group)) or "none installed"
        kinds = group.removeprefix("edgeml.")
        raise UsageError(f"no {kinds.rstrip('s')} {name!r}; {kinds} are: {known}")
    entry = found[0]
    try:
        return entry.load()
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module.startswith("edgeml"):
            raise
        install = install_command(entry.dist.name if entry.dist else "edgeml-core", name)
        lacks = f"{name} needs {error.name!r}, which is not installed. Install it: {install}"
        if not isinstance(error, ModuleNotFoundError):
            lacks = f"{name} cannot be imported: {error}. Mend what it lacks, or install it anew: {install}"
        raise EngineMissingError(lacks) from error


def install_command(distribution: str, extra: str) -> str:
    """Give the command that brings a driver's engine; on an emulated board its image has to hold it."""
    if extra in RUNTIMES and cpu.emulated():
        engines = " ".join(f"--engine {name}" for name in RUNTIMES)
        return f"edgeml emulate build {engines} (on the computer that emulates this board)"
    return f"pip install '{distribution}[{extra}]'"


def runtime(name: str) -> Runtime:
    """Give the runtime driver of that name."""
    return cast("Runtime", load(RUNTIME_GROUP, name)())


def transport(url: str) -> Transport:
    """Give an unconnected transport for a URL such as ``local:``."""
    return cast("Transport", load(TRANSPORT_GROUP, url.partition(":")[0])(url))


def conversion_steps() -> tuple[ConversionStep, ...]:
    """Give every registered conversion step."""
    steps: list[ConversionStep] = []
    for name in names(CONVERTER_GROUP):
        steps.extend(cast("Sequence[ConversionStep]", load(CONVERTER_GROUP, name)))
    return tuple(steps)


def _entries(group: str) -> tuple[EntryPoint, ...]:
    return _scan(group, tuple(sys.path))


@cache
def _scan(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:  # noqa: ARG001 - the cache's key
    # importlib.metadata costs 65 ms, too much for `import edgeml`.
    metadata = importlib.import_module("importlib.metadata")
    return tuple(metadata.entry_points(group=group))
