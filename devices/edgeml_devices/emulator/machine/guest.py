"""Runs in the guest: waits, warm, for a machine to go on from a snapshot, and makes it one of its own.

``python3 -P -m edgeml_devices.emulator.machine.guest ENGINE…``, by root, on a serial line. It imports LiteRT,
removes what would be the same on every machine, and says :data:`ASLEEP`; there the snapshot is taken. It
goes on with a line that the host sends: the time, randomness, a boot id. Then it says :data:`AWAKE`, with
what LiteRT computes on this machine (:mod:`edgeml_devices.emulator.user.canary`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Final

from edgeml_devices.emulator.user import canary

ASLEEP: Final = "edgeml-asleep"
AWAKE: Final = "edgeml-awake"
_MODULES: Final = {
    "litert": "ai_edge_litert.interpreter",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}
_RNDRESEEDCRNG: Final = 0x5207
"""random(4): the kernel's generator starts anew from what was put in."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_OWN_BOOT_ID: Final = Path("/run/edgeml/boot_id")
_READY: Final = Path("/run/edgeml/http/ready.json")
_MACHINE_ID: Final = Path("/etc/machine-id")


def main(engines: list[str]) -> None:
    """Wait for the line, and do what it says."""
    for name in engines:  # what a program reads is then in memory, on every machine
        subprocess.run([sys.executable, "-P", "-c", f"import {_MODULES[name]}"], check=True)
    infer = _canary() if "litert" in engines else None
    for key in Path("/etc/dropbear").glob("*_host_key"):
        key.unlink()
    _cover_boot_id()
    os.sync()
    _say(ASLEEP)
    told = json.loads(sys.stdin.readline())
    time.clock_settime(time.CLOCK_REALTIME, told["time_s"])
    _reseed(bytes.fromhex(told["seed"]))
    _name(told["boot_id"])
    _say(AWAKE, *(infer() if infer else ()), AWAKE)


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def _canary() -> Callable[[], list[int]]:
    """Give the layer of known result, ready to compute, and warm."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(model_path=str(canary.MODEL), num_threads=1)
    engine.allocate_tensors()
    given, wanted = engine.get_input_details()[0], engine.get_output_details()[0]
    values = np.asarray(canary.INPUT, np.int8)[None]

    def infer() -> list[int]:
        engine.set_tensor(given["index"], values)
        engine.invoke()
        found: list[int] = engine.get_tensor(wanted["index"])[0].tolist()
        return found

    infer()
    return infer


def _cover_boot_id() -> None:
    """Lay a file of ours over the kernel's, to be written once this machine goes on."""
    _OWN_BOOT_ID.write_text(_BOOT_ID.read_text())
    _OWN_BOOT_ID.chmod(0o444)
    subprocess.run(["/bin/mount", "--bind", _OWN_BOOT_ID, _BOOT_ID], check=True)


def _reseed(seed: bytes) -> None:
    with Path("/dev/urandom").open("r+b", buffering=0) as random:
        random.write(seed)
        ioctl(random, _RNDRESEEDCRNG)


def _name(boot_id: str) -> None:
    before = _OWN_BOOT_ID.read_text().strip()
    _OWN_BOOT_ID.write_text(f"{boot_id}\n")
    _READY.write_text(_READY.read_text().replace(before, boot_id))
    if _MACHINE_ID.read_text().strip():
        _MACHINE_ID.write_text(boot_id.replace("-", "") + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
