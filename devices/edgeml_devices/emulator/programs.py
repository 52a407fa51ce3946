"""Runs a program of the host; it ends with us, however we do, and its last lines are in the error."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edgeml.errors import EdgemlError
from edgeml.processes import kill_session, leash
from edgeml_devices.emulator.own_folder import own_folder

TAIL_LINES: Final = 8
"""Of a program that failed, as many are shown."""
_INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM)


def run(
    argv: Sequence[str | Path],
    what: str,
    *,
    folder: Path | None = None,
    on_line: Callable[[str], None] = lambda _: None,
) -> str:
    """Run a program to its end; gives what it wrote, stderr included. Its temporary files go with it.

    Args:
        argv: the program and its arguments.
        what: what it does, for the error: ``fetching the packages``.
        folder: where it runs; here by default.
        on_line: called with each line as it comes.

    Raises:
        EdgemlError: it ended with another exit code than 0; holds its last lines.
    """
    with own_folder("edgeml-emulate-") as scratch:
        code, lines = _run(argv, folder, scratch, on_line)
    if code != 0:
        raise failure(
            what, str(argv[0]), code, [line.rstrip() for line in lines if line.strip()][-TAIL_LINES:]
        )
    return "".join(lines)


def _run(
    argv: Sequence[str | Path], folder: Path | None, scratch: Path, on_line: Callable[[str], None]
) -> tuple[int, list[str]]:
    lines: list[str] = []
    process = None
    # an interruption inside Popen would leave a program that nobody knows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTIONS)
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8", "TMPDIR": str(scratch)},
            start_new_session=True,
            preexec_fn=leash(signal.SIGKILL),  # noqa: PLW1509 - as in leash
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for line in process.stdout or ():
            lines.append(line)
            on_line(line.rstrip())
        return process.wait(), lines
    except BaseException:
        if process is not None:
            kill_session(process)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if process is not None and process.stdout is not None:
            process.stdout.close()


def failure(what: str, program: str, code: int, lines: Sequence[str]) -> EdgemlError:
    """Give the error for a program that failed."""
    tail = "".join(f"\n  {line}" for line in lines)
    return EdgemlError(f"{what} failed: {Path(program).name} ended with exit code {code}{tail}")
