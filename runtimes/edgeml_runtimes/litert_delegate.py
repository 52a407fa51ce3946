"""Opens the delegate that takes the operators of a compiled file: the Edge TPU's library, or another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ai_edge_litert.interpreter import load_delegate

from edgeml.edgetpu import delegate_options, edge_tpus, library_lack, library_name, use_lack
from edgeml.errors import AcceleratorError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

_DEVICE: Final = re.compile(r"(usb|pci)?(:\d+)?")


def open_delegate(artifact: Path, library: str, device: str, performance: str) -> Any:
    """Give a delegate. It must live longer than the interpreter that is given it.

    Args:
        artifact: the model it is for, named in errors.
        library: name or path; empty for the Edge TPU's.
        device: which Edge TPU, as the option of that name.
        performance: ``default``, or as the library calls it, in small letters.

    Raises:
        UsageError: a device of another form.
        AcceleratorError: no library, one that cannot be loaded, no device, or one that cannot be used;
            with the remedy.
    """
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"litert option device: {device!r} is none of usb, pci, usb:N, pci:N, :N")
    name = library or library_name()
    lack = library_lack(name)  # first: LiteRT's own loader leaves a broken object behind
    if lack is None:
        options = delegate_options(device, "" if performance == "default" else performance)
        try:
            return load_delegate(name, options)
        except ValueError as error:
            said = str(error).partition("\n")[2].strip()
            if said:
                raise AcceleratorError(f"{artifact}: {name} refuses: {said}") from error
            lack = use_lack(device, edge_tpus())
    raise AcceleratorError(f"{artifact}: compiled for the Edge TPU, and {lack}")
