"""Snapshots: a machine that was booted and warmed once, for others to go on from, several at a time.

``snapshots/KEY`` in the image's folder, and gone with it. A machine's memory is a private copy of the
snapshot's, its disk a layer over the snapshot's: neither is read before the guest asks for it.

```
memory          the board's memory
state           of everything else in QEMU
disk.qcow2      what was written while booting, over the image's disk
SHA256SUMS      of state and disk, read before each start
memory.sum      of the memory, which is read while a machine starts
```
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from edgeml.errors import EngineError
from edgeml_devices.emulator import programs
from edgeml_devices.emulator.images.build import WAITING
from edgeml_devices.emulator.images.cache import Cache, hold
from edgeml_devices.emulator.machine.command import MemoryFile, Place, snapshot_key
from edgeml_devices.emulator.machine.launch import WITHOUT_SNAPSHOT, Setup, Snapshot
from edgeml_devices.emulator.machine.machine import Machine
from edgeml_devices.emulator.machine.soundness import damage, write_sums
from edgeml_devices.emulator.machine.waking import put_to_sleep, save_state
from edgeml_devices.emulator.user import canary

_ENDS_WITHIN_S = 60.0


def find_snapshot(setup: Setup) -> Snapshot | None:
    """Give the snapshot for a board, an image and this QEMU, if it was taken.

    Raises:
        EngineError: it is damaged: QEMU would wait for it without end, or the guest trip over it later.
    """
    cache, kind, key = _place(setup)
    folder = cache.place(kind, key)
    if not folder.is_dir():
        return None
    found = Snapshot(folder)
    fault = damage(found, setup.memory_bytes)
    if fault is not None:
        raise EngineError(f"the snapshot {folder} is damaged: {fault}; {WITHOUT_SNAPSHOT}")
    return found


def take_snapshot(setup: Setup, say: Callable[[str], None] = lambda _: None) -> Snapshot:
    """Give the snapshot for a board, an image and this QEMU; boots and warms a machine where there is none.

    Another process that takes the same one is waited for. QEMU of another version takes another one.

    Args:
        setup: what is booted.
        say: called with what goes on.

    Raises:
        EngineError: QEMU or the guest does not come up; holds what they said last.
        EngineMissingError: the image was removed meanwhile.
    """
    cache, kind, key = _place(setup)
    with hold(setup.image):
        made = cache.made(kind, key, lambda folder: _fill(setup, key, folder, say), lambda: say(WAITING))
        return Snapshot(made)


def _place(setup: Setup) -> tuple[Cache, str, str]:
    key = snapshot_key(setup.qemu, setup.board, setup.image, setup.memory_bytes)
    folder = setup.image.folder
    return Cache(folder.parent.parent), f"{folder.parent.name}/{folder.name}/snapshots", key


def _fill(setup: Setup, key: str, folder: Path, say: Callable[[str], None]) -> None:
    made = Snapshot(folder)
    say(f"booting {setup.board.name}")
    with Machine.start(
        setup, name=f"snapshot-{key[:12]}", file=MemoryFile(made.memory, kept=True)
    ) as machine:
        say("warming it")
        machine.put(canary.MODEL, "/tmp/canary.tflite")  # noqa: S108 - the guest's
        machine.hang_up()
        put_to_sleep(machine.ports.serial, setup.image, machine.name)
        say("writing it down")
        save_state(machine.folder, made.state)
        if not machine.wait_ended(_ENDS_WITHIN_S):
            raise EngineError(
                f"{machine.name}: QEMU was told to end, and did not within {_ENDS_WITHIN_S:g} s"
            )
        shutil.move(Place(machine.folder).disk, made.disk)
    below = Path("../..") / setup.image.disk.name
    programs.run(
        ["qemu-img", "rebase", "-q", "-u", "-b", below, "-F", "qcow2", made.disk], "keeping the disk"
    )
    write_sums(made)
    for path in (made.disk, made.state):
        path.chmod(0o444)
