"""Starting a machine, and finding it again: what ``edgeml emulate`` and every other user of machines calls.

::

    with start_machine(Wanted(board_named("raspberry-pi-4"))) as machine:
        machine.sh("nproc")                     # or run(argv); put and get for files
        machine.ssh_url                         # for every command that takes a transport
        machine.power_cut()
        machine.restart()                       # boots on the disk as it was left; ports are others

A machine ends with the ``with``, with ``close()``, or with this process, however that one ends; unless it
was told to ``detach()``. :func:`find_machine` gives one that any process started.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeml.errors import EngineMissingError, UsageError
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.boards import Board, board_named
from edgeml_devices.emulator.images.build import Progress, Report, build_image, find_image
from edgeml_devices.emulator.images.cache import open_cache
from edgeml_devices.emulator.images.choice import fullest_image, request_as_before
from edgeml_devices.emulator.images.image import Image, ImageRequest
from edgeml_devices.emulator.images.kept import read_image
from edgeml_devices.emulator.images.room import room_in
from edgeml_devices.emulator.machine import state
from edgeml_devices.emulator.machine.launch import Setup, Snapshot
from edgeml_devices.emulator.machine.machine import Machine, attach
from edgeml_devices.emulator.machine.proof import prove
from edgeml_devices.emulator.machine.snapshots import find_snapshot, take_snapshot
from edgeml_devices.emulator.qemu import find_qemu


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a machine is to be."""

    board: Board
    image: ImageRequest | None = None
    """What its image holds. By default the image with the most engines of those that hold edgeml as it is
    now; where there is none, one is built with what the fullest image before held, or else with LiteRT."""
    memory_bytes: int | None = None
    """Another memory than the board's."""


def start_machine(
    wanted: Wanted, *, name: str = "", fresh: bool = False, report: Report = lambda _: None
) -> Machine:
    """Start a machine, and wait until it answers. Builds first what it needs and is not there yet.

    Args:
        wanted: what it is to be.
        name: the board's by default, with a number behind it where that one is taken.
        fresh: boot it, in place of going on from a snapshot of a booted one.
        report: called with the progress of what is built.

    Raises:
        EngineMissingError: programs are missing on this machine; names each and its package.
        EngineError: QEMU or the guest does not come up, and what they said last; or it computes wrongly.
        UsageError: the name is taken, or no name of a machine.
    """
    state.check_name(name)
    setup = setup_of(wanted, report)
    with room_in(open_cache().folder):
        if not fresh:
            return Machine.start(setup, name=name, snapshot=_snapshot(setup, report))
        report(Progress("boot", None, setup.board.name))
        machine = Machine.start(setup, name=name)
        try:
            prove(machine)
        except BaseException:
            machine.close()
            raise
        report(Progress("boot", 1.0))
        return machine


def setup_of(wanted: Wanted, report: Report = lambda _: None) -> Setup:
    """Give what QEMU is started with; builds the image if there is none.

    Raises:
        EngineMissingError: programs are missing on this machine; names each and its package.
    """
    image = _found_image(wanted.image)
    if image is None:
        tools.require(*tools.TO_BOOT, *tools.TO_BUILD)
        image = _built_image(wanted.image or request_as_before(), report)
    else:
        tools.require(*tools.TO_BOOT)
    return Setup.of(find_qemu(), wanted.board, image, wanted.memory_bytes)


def find_machine(name: str) -> Machine:
    """Give a machine by its name, whoever started it; it does not end with the one who finds it.

    Raises:
        UsageError: there is none of that name; says which there are.
        EngineMissingError: its image, or QEMU, is gone.
    """
    found = machine_folder(name)
    image = read_image(open_cache(), found.record.image)
    if image is None:
        raise EngineMissingError(
            f"the image of {name} is gone; remove the machine: edgeml emulate stop {name}"
        )
    board = board_named(found.record.board)
    return attach(found, Setup.of(find_qemu(), board, image, found.record.memory_bytes))


def machine_folder(name: str) -> state.Found:
    """Give where a machine is, and what runs there.

    Raises:
        UsageError: there is none of that name, and which there are; or its record cannot be read.
    """
    found = state.machine_named(name)
    if found is None:
        if name in {folder.name for folder in state.unreadable()}:
            raise UsageError(unreadable_words(name))
        there = ", ".join(one.name for one in state.machines()) or "none"
        raise UsageError(f"no machine {name!r}; there are: {there}. Start one: edgeml emulate raspberry-pi-4")
    return found


def unreadable_words(name: str) -> str:
    """Say that nothing can be told of a machine, and what can be done."""
    return (
        f"the machine.json of {name} cannot be read: it is damaged, or of another version of edgeml; "
        f"end it, and remove its disk: edgeml emulate stop {name}"
    )


def _snapshot(setup: Setup, report: Report) -> Snapshot:
    found = find_snapshot(setup)
    if found is None:
        found = take_snapshot(setup, lambda text: report(Progress("snapshot", None, text)))
        report(Progress("snapshot", 1.0))
    return found


def _found_image(request: ImageRequest | None) -> Image | None:
    if request is not None:
        return find_image(request)
    try:
        return fullest_image()
    except EngineMissingError:
        return None


def _built_image(request: ImageRequest, report: Report) -> Image:
    engines = ", ".join(request.engines)
    why = (
        f"no image with {engines} holds edgeml as it is now: one is built first, which takes a minute or more"
    )
    report(Progress("note", None, why))
    return build_image(request, report)
