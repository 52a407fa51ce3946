"""What is here and what is missing: engines, the Edge TPU, tools, workers, the CPU, folders.

Rooms add checks through the entry-point group ``edgeml.doctor``:
``workers = "edgeml_converters.workers:doctor_checks"``, a function without arguments that gives a
sequence of ``Check``.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from edgeml import plugins
from edgeml.edgetpu import ACCELERATOR, EdgeTpu, device_lack, edge_tpus, library_name
from edgeml.engines import engine, version_fits, wanted_range
from edgeml.errors import EngineMissingError
from edgeml.settings import settings
from edgeml.targets import Target, host

GROUP: Final = "edgeml.doctor"
IMPORT_TIMEOUT_S: Final = 60.0
_LOAD_LIBRARY: Final = """
import sys
from edgeml.edgetpu import library_lack, library_name
lack = library_lack(library_name())
sys.exit(lack and f"{lack.what}|{lack.text}|{lack.remedy}")
"""
_NEW_LIBRARY: Final = "install Coral's package libedgetpu1-std again"
Status = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    group: str
    """``machine``, ``runtime``, ``accelerator``, ``tool``, ``worker``, ``emulator``, ``folder``;
    ``room``: it failed."""
    name: str
    status: Status
    """``missing`` is no fault, only something that cannot be used; ``broken`` is one."""
    detail: str
    """Version, place, or what went wrong."""
    remedy: str = ""
    """The command or step that brings it; empty where all is well."""


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution that a room's work needs."""

    name: str
    distribution: str
    module: str
    serves: str
    """What cannot be done without it."""
    install: str
    """What pip is given to bring it: the distribution that asks for it, with the extra."""


PILLOW: Final = Package("pillow", "pillow", "PIL.Image", "images as data, resizing", "edgeml-core[images]")


def checks() -> tuple[Check, ...]:
    """Look at everything; a check of a room that fails is itself a check."""
    found = [*machine_checks(host())]
    found += runtime_checks()
    found.append(edge_tpu_check(edge_tpus()))
    found.append(package_check("tool", PILLOW))
    for name in plugins.names(GROUP):
        found += _room_checks(name)
    return (*found, *folder_checks())


def machine_checks(machine: Target) -> tuple[Check, ...]:
    """Say what machine this is and what its CPU brings to quantized models."""
    version = platform.python_version()
    memory_gib = machine.memory_bytes / (1 << 30)
    of_interest = (
        "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
        "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve",
    )  # fmt: skip
    features = [name for name in of_interest if name in machine.cpu_features]
    return (
        Check("machine", "python", "ok", f"{version} on {platform.system()} {machine.architecture}"),
        Check("machine", "class", "ok", f"{machine.name}: {machine.title}"),
        Check("machine", "cpu", "ok", f"{machine.cores} cores, {memory_gib:.1f} GiB memory"),
        Check("machine", "cpu features", "ok", " ".join(features) or "none that quantized models use"),
    )


def runtime_checks() -> Sequence[Check]:
    """Look at the engine of every runtime that is registered, whoever brings it."""
    found = [_runtime_check(name) for name in plugins.names(plugins.RUNTIME_GROUP)]
    none = Check("runtime", "any", "missing", "no runtime is installed", "pip install 'edgeml-core[device]'")
    return found or [none]


def _runtime_check(name: str) -> Check:
    found = engine(name)
    if found is not None and found.fault is not None:
        status: Status = "missing" if found.version is None else "broken"
        return Check("runtime", name, status, found.fault, found.install)
    version = "its driver declares no engine" if found is None else str(found.version)
    reason = failure_of(f"from edgeml import plugins; plugins.runtime({name!r})")
    if reason is None:
        return Check("runtime", name, "ok", version)
    status = "missing" if EngineMissingError.__name__ in reason else "broken"
    remedy = "reinstall the distribution that its driver comes from"
    if found is not None:
        remedy = f"pip install --force-reinstall '{found.distribution}=={found.version}'"
    return Check("runtime", name, status, f"{version}, cannot be loaded: {reason}", remedy)


def edge_tpu_check(found: Sequence[EdgeTpu]) -> Check:
    """Look at the Edge TPU's library, which is loaded in a process of its own, and at what is attached."""
    library = library_name()
    attached = ", ".join(f"{one.kind} ({one.node or 'no driver'})" for one in found)
    fault = failure_of(_LOAD_LIBRARY)
    if fault is not None:
        what, _, text = fault.partition("|")
        text, _, remedy = text.partition("|")
        if what != "library":
            return _edge_tpu("broken", text or f"{library} cannot be loaded: {fault}", remedy or _NEW_LIBRARY)
        if not found:
            return _edge_tpu("missing", f"none is attached, and {library} is not on this machine", "")
        return _edge_tpu("missing", f"{text}; attached: {attached}", remedy)
    if sys.platform != "linux":
        return _edge_tpu("ok", f"{library}; what is attached cannot be seen on this system", "")
    lack = device_lack("", tuple(found))
    if lack is None:
        return _edge_tpu("ok", f"{library}, {attached}", "")
    return _edge_tpu(
        "missing" if lack.what == "device" else "broken", f"{library}, but {lack.text}", lack.remedy
    )


def _edge_tpu(status: Status, detail: str, remedy: str) -> Check:
    return Check("accelerator", ACCELERATOR, status, detail, remedy)


def package_check(group: str, package: Package) -> Check:
    """Look for a distribution; one that has a module is imported in a process of its own."""
    install = f"pip install '{package.install}'"
    try:
        version = metadata.version(package.distribution)
    except metadata.PackageNotFoundError:
        detail = f"{package.distribution} is not installed: no {package.serves}"
        return Check(group, package.name, "missing", detail, install)
    wanted = wanted_range(package.install.partition("[")[0], package.distribution)
    if not version_fits(version, wanted):
        return Check(group, package.name, "broken", f"{version}, but {wanted} is needed", install)
    reason = failure_of(f"import {package.module}") if package.module else None
    if reason is not None:
        again = f"pip install --force-reinstall '{package.distribution}=={version}'"
        return Check(group, package.name, "broken", f"{version}, cannot be imported: {reason}", again)
    return Check(group, package.name, "ok", version)


def failure_of(code: str, timeout_s: float = IMPORT_TIMEOUT_S) -> str | None:
    """Run code in a fresh interpreter; give the last line of what went wrong, or ``None``."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {timeout_s:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the interpreter ended with {done.returncode}"


def folder_checks() -> tuple[Check, ...]:
    """Say whether edgeml's folders can be written to."""
    place = settings()
    folders = (("home", place.home, "EDGEML_HOME"), ("cache", place.cache_dir, "EDGEML_CACHE_DIR"))
    return tuple(_folder(name, folder, variable) for name, folder, variable in folders)


def _folder(name: str, folder: Path, variable: str) -> Check:
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        later = "" if nearest == folder else " (made when it is needed)"
        return Check("folder", name, "ok", f"{folder}{later}")
    why = "cannot be written to" if nearest.is_dir() else "is not a folder"
    return Check(
        "folder", name, "broken", f"{folder}: {nearest} {why}", f"set {variable} to a folder of yours"
    )


def _room_checks(name: str) -> Sequence[Check]:
    try:
        found: Sequence[Check] = plugins.load(GROUP, name)()
    except Exception as error:  # noqa: BLE001 - a broken room is what a doctor is for
        detail = f"its check failed: {type(error).__name__}: {error}"
        return [Check("room", name, "broken", detail, "reinstall the distribution it comes from")]
    return found
