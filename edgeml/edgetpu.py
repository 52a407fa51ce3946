"""Coral's Edge TPU on this machine: its library, its devices, and what keeps them from being used.

Each lack has a message and a remedy of its own. Devices are read below a root folder, so that a test can lay
out another machine.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

ACCELERATOR: Final = "edgetpu"
"""The word for it in targets and in what variants need."""
OPERATOR: Final = "edgetpu-custom-op"
"""What the Edge TPU compiler puts in place of the operators that it maps."""
VARIABLE: Final = "EDGEML_EDGETPU_LIBRARY"
"""Names another library than Coral's under its usual name."""
OPTIONS: Final = ("delegate", "device", "performance")
"""Of the runtime; they mean nothing to a model on the CPU."""
KERNEL: Final = "EdgeTpu"
"""How the delegate's operator is called where it fails."""
_COMPILED: Final = "_edgetpu.tflite"
_LIBRARIES: Final = {"darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
_LIBRARY: Final = "libedgetpu.so.1"
_ENTRY: Final = "tflite_plugin_create_delegate"
_ABSENT: Final = re.compile(r"No such file|no such file|not found")
_USB_IDS: Final = {"1a6e": "089a", "18d1": "9302"}
"""Vendor to product: before the library first used it, and since (it loads its firmware)."""
_PCI_ID: Final = "1ac1089a"
_INSTALL: Final = "install Coral's package libedgetpu1-std (https://coral.ai/software)"
_USB_RULE: Final = (
    "install libedgetpu1-std, which brings a udev rule for the group plugdev, add the user to that group, "
    "and plug the device in again"
)
_APEX_RULE: Final = (
    'add the udev rule SUBSYSTEM=="apex", MODE="0660", GROUP="apex", and the user to the group apex'
)
_GASKET: Final = "install Coral's package gasket-dkms and load the modules gasket and apex"


@dataclass(frozen=True, slots=True)
class EdgeTpu:
    """One that is attached."""

    kind: Literal["usb", "pci"]
    node: Path | None
    """The device file that a process opens; ``None``: the kernel has no driver for it."""
    is_writable: bool
    """Whether this user may use it."""


@dataclass(frozen=True, slots=True)
class Lack:
    """What keeps a model from running on an Edge TPU."""

    what: Literal["library", "loading", "device", "driver", "permission", "use"]
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"


def library_name() -> str:
    """Give the name or path by which the library is loaded."""
    return os.environ.get(VARIABLE) or _LIBRARIES.get(sys.platform, _LIBRARY)


def library_lack(library: str) -> Lack | None:
    """Load the library; say what is wrong with it, if something is."""
    import ctypes  # `edgeml.load` asks for devices on every machine, and for the library on few

    try:
        loaded = ctypes.CDLL(library)
    except OSError as error:
        text = str(error)
        if _ABSENT.search(text) and text.startswith(library):
            return Lack("library", f"the Edge TPU's library {library} is not on this machine", _INSTALL)
        return Lack("loading", f"the Edge TPU's library cannot be loaded: {text}", _remedy_of_loading(text))
    if hasattr(loaded, _ENTRY):
        return None
    text = f"{library} is no delegate of LiteRT: it has no {_ENTRY}"
    return Lack("loading", text, f"name Coral's library, or leave {VARIABLE} and the option delegate out")


def _remedy_of_loading(text: str) -> str:
    needed = text.partition(":")[0]
    if _ABSENT.search(text) and ".so" in needed:
        return f"install what it needs, {needed}"
    return "install libedgetpu1-std for this machine's architecture and C library"


def edge_tpus(root: Path = Path("/")) -> tuple[EdgeTpu, ...]:
    """Find the Edge TPUs that are attached, by what Linux lists; none elsewhere."""
    return (*_on_usb(root), *_on_pci(root))


def device_lack(device: str, found: tuple[EdgeTpu, ...]) -> Lack | None:
    """Say why none of the devices that were found can be used; ``None`` if one should be.

    Args:
        device: as the option of that name: ``""``, ``usb``, ``pci``, with ``:N`` behind it or not.
        found: as :func:`edge_tpus` gave them.
    """
    kind = device.partition(":")[0]
    fitting = [one for one in found if kind in {"", one.kind}]
    if not fitting:
        others = ", ".join(dict.fromkeys(one.kind for one in found))
        if others:
            text = f"no Edge TPU on {kind} is attached, only on {others}"
            return Lack("device", text, "change option device")
        return Lack("device", "no Edge TPU is attached", "plug it in, on a USB 3 port if there is one")
    if any(one.is_writable for one in fitting):
        return None
    denied = next((one.node for one in fitting if one.node is not None), None)
    if denied is None:
        return Lack("driver", "the Edge TPU on PCI has no driver: there is no /dev/apex_0", _GASKET)
    rule = _USB_RULE if fitting[0].kind == "usb" else _APEX_RULE
    return Lack("permission", f"this user may not write to the Edge TPU's {denied}", rule)


def use_lack(device: str, found: tuple[EdgeTpu, ...]) -> Lack:
    """Say why the library, which loads, gave no device."""
    busy = Lack(
        "use",
        "the Edge TPU's library cannot open the device",
        "end the process that uses it, or plug it in again"
        + (f"; option device says {device}" if device else ""),
    )
    return device_lack(device, found) or busy


def delegate_options(device: str, performance: str) -> Mapping[str, str]:
    """Give the library's own options: it heeds the performance only of a device with a number."""
    chosen = device
    if performance and ":" not in device:
        chosen = f"{device}:0"
    options = {"device": chosen} if chosen else {}
    return options | ({"Performance": performance.capitalize()} if performance else {})


def source_beside(model: Path) -> Path | None:
    """Give the source of a file with the compiler's own name, ``NAME_edgetpu.tflite``, if it is there."""
    if not model.name.endswith(_COMPILED):
        return None
    source = model.with_name(f"{model.name.removesuffix(_COMPILED)}.tflite")
    return source if source.is_file() else None


def _on_usb(root: Path) -> list[EdgeTpu]:
    found = []
    for place in _folders(root / "sys/bus/usb/devices"):
        product = _USB_IDS.get(_text(place / "idVendor"))
        if product is None or product != _text(place / "idProduct"):
            continue
        with suppress(ValueError):
            bus, number = int(_text(place / "busnum")), int(_text(place / "devnum"))
            node = root / f"dev/bus/usb/{bus:03}/{number:03}"
            found.append(EdgeTpu("usb", node, os.access(node, os.W_OK)))
    return found


def _on_pci(root: Path) -> list[EdgeTpu]:
    nodes = sorted((root / "dev").glob("apex_*"))
    listed = sum(_PCI_ID in line.split()[1:2] for line in _text(root / "proc/bus/pci/devices").splitlines())
    bare: list[Path | None] = [None] * (listed - len(nodes))
    return [EdgeTpu("pci", one, one is not None and os.access(one, os.W_OK)) for one in (*nodes, *bare)]


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeError):
        return ""
