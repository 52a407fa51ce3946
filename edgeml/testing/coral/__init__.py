"""A stand-in for the Edge TPU: a library that LiteRT loads in place of ``libedgetpu``.

It takes what the Edge TPU compiler made and answers with the source model's result on the CPU, so that code
for a Coral can be tried without one. Speed and memory are not an Edge TPU's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgeml.errors import UsageError

VARIABLE: Final = "EDGEML_CORAL_STANDIN"
"""The stand-in's options as a text, see :func:`standin_options`."""
LIBRARY: Final = "libedgetpu-standin.so"
_SOURCE: Final = "standin.c"
_COMPILERS: Final = ("cc", "gcc", "clang")


def compiler() -> str | None:
    """Give this machine's C compiler: ``CC``, else the first of the usual ones; ``None``: there is none."""
    names = (os.environ["CC"],) if os.environ.get("CC") else _COMPILERS
    return next((found for name in names if (found := shutil.which(name)) is not None), None)


def build_standin(folder: Path, compiler: Sequence[str], python: str = sys.executable) -> Path:
    """Compile the stand-in.

    Args:
        folder: where the library goes.
        compiler: command of a C compiler for the machine that will load it: ``("cc",)``,
            ``("aarch64-linux-gnu-gcc",)``.
        python: interpreter on that machine that has edgeml and LiteRT; it runs the source model.

    Returns:
        The library's path.

    Raises:
        UsageError: no such compiler, or it fails; with what it said.
    """
    library = folder / LIBRARY
    source = Path(__file__).with_name(_SOURCE)
    define = f'-DSTANDIN_PYTHON="{python}"'
    command = [*compiler, "-std=gnu11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
    try:
        done = subprocess.run(
            [*command, define, "-o", str(library), str(source)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise UsageError(f"{compiler[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise UsageError(f"{compiler[0]} cannot compile {source}: {done.stderr.strip()[-2000:]}")
    return library


def standin_options(
    source: Path,
    *,
    attached: str = "usb",
    latency_us: int = 0,
    fail_after: int | None = None,
    xnnpack: bool = True,
) -> str:
    """Give the value of ``EDGEML_CORAL_STANDIN``.

    Args:
        source: the ``.tflite`` that was compiled.
        attached: which Edge TPU is there: ``usb``, ``pci`` or ``none``.
        latency_us: how long a call takes at least.
        xnnpack: whose kernels answer, as LiteRT's option of that name.
        fail_after: calls after which the device is gone, as if it was unplugged, for every model that a
            process has on it and for those that it loads later; ``None``: never. The text of another call of
            this function is of another device, that was plugged in in its place.
    """
    texts = {"source": source, "attached": attached, "latency_us": latency_us}
    if fail_after is not None:
        texts |= {"fail_after": fail_after, "plugged": secrets.token_hex(4)}
    if not xnnpack:
        texts["xnnpack"] = "off"
    return ";".join(f"{key}={value}" for key, value in texts.items())
