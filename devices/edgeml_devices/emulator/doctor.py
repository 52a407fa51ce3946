"""What ``edgeml doctor`` says of emulation: the programs that it needs, and the images that are there."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml import cpu
from edgeml.doctor import Check
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.images.build import images


def emulation_checks() -> tuple[Check, ...]:
    """Look for the programs of each mode; nothing on a board, where nobody emulates another one."""
    if cpu.board():
        return ()
    return (
        _check("machines", (*tools.TO_BOOT, *tools.TO_BUILD), "emulated boards"),
        _check("user mode", tools.TO_RUN_IN_USER_MODE, "the programs of emulated boards, without a kernel"),
    )


def _check(name: str, wanted: Sequence[tools.Tool], serves: str) -> Check:
    lacking = tools.missing(wanted)
    if lacking:
        programs = ", ".join(tool.program for tool in lacking)
        return Check("emulator", name, "missing", f"no {serves}: {programs}", tools.install_command(lacking))
    count = len(images())
    return Check("emulator", name, "ok", f"{count} image{'' if count == 1 else 's'} built")
