"""A device that a release is installed on, through any transport: the verbs of ``device.sh``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from edgeml import plugins
from edgeml.errors import TransportError, UsageError
from edgeml.transport import CommandResult, Transport
from edgeml_devices.install.owner import may_take, new_owner
from edgeml_devices.install.words import StepError
from edgeml_devices.messages import Reason, Result, State

VERB_TIMEOUT_S: Final = 300.0
"""For hashing a few hundred megabytes on a small board, and for a ``sync`` behind a slow card."""
LEASE_S: Final = 180
SLOWEST_BYTES_PER_S: Final = 4096
"""What a lease counts on while a file is on its way: half of a serial line at 115,200 baud."""
ROOT_HOME: Final = "/var/lib/edgeml"
USER_HOME: Final = ".local/share/edgeml"
_ASK: Final = (
    'printf "uid:%s\\nhome:%s\\nedgeml_home:%s\\n" '
    '"$(id -u 2>/dev/null || busybox id -u)" "${HOME:-}" "${EDGEML_HOME:-}"'
)
_HAS_SCRIPT: Final = """
LC_ALL=C; export LC_ALL
command -v mkdir >/dev/null 2>&1 || mkdir() { busybox mkdir "$@"; }
[ -s "$1" ] || { mkdir -p "$2" && echo missing; }
"""


@dataclass(frozen=True, slots=True)
class InstalledOnDevice:
    """What the device says of one model."""

    name: str
    running: int | None
    previous: int | None
    variants: tuple[str, ...]
    """Of the running release."""
    manifest_sha256: str
    """Of the running release; empty where this installer did not put it there."""
    state: State | None
    """Of the last deploy; ``None``: it cannot be read."""
    release: int | None
    """Of the last deploy."""
    back: int | None
    """Where its rollback leads."""
    starts: int
    result: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """Lines ``key:value`` that a verb answered; a key may come several times."""

    lines: tuple[tuple[str, str], ...]

    def all(self, key: str) -> tuple[str, ...]:
        return tuple(value for name, value in self.lines if name == key)

    def first(self, key: str) -> str:
        return next(iter(self.all(key)), "")

    def number(self, key: str) -> int | None:
        text = self.first(key)
        return int(text) if text.isdecimal() else None


class Device:
    """One home folder on one device. Not for several threads at once."""

    def __init__(self, transport: Transport, home: str, user_home: str, owner: str, script: str) -> None:
        self.transport = transport
        self.home = home
        self.user_home = user_home
        """The home folder of who is logged in; empty if there is none."""
        self._owner = owner
        self._script = script

    def call(self, verb: str, *arguments: str, lease_s: int = LEASE_S) -> Reply:
        """Let the device do a verb of ``device.sh``.

        Raises:
            StepError: the device says why not.
            TransportError: it cannot be reached, or did not answer in time.
        """
        argv = ["sh", self._script, self.home, self._owner, str(lease_s), verb, *arguments]
        done = self.transport.run(argv, VERB_TIMEOUT_S)
        reply = _reply(done.stdout)
        for key, value in reply.lines:
            if key == "error":
                reason, _, text = value.partition(":")
                raise StepError(_reason(reason), text)
        if done.exit_code != 0 or not reply.all("ok"):
            raise StepError(Reason.IO_ERROR, f"{verb} on the device ended early: {_tail(done)}")
        return reply

    def lock(self, who: str, *, force: bool) -> None:
        """Take this home for one deploy; from one that died on this workstation at once.

        Raises:
            StepError: another deploy has it, or an agent.
        """
        taken = ""
        for _ in range(2):
            argv = ["sh", self._script, self.home, self._owner, str(LEASE_S), "lock", who]
            done = self.transport.run([*argv, "force" if force else "", taken], VERB_TIMEOUT_S)
            reply = _reply(done.stdout)
            taken = reply.first("owner")
            if not taken or not (force or may_take(taken)):
                break
        if reply.all("ok"):
            return
        reason, _, text = reply.first("error").partition(":")
        if taken:
            left_s = reply.first("seconds")
            text += f"; try again when it has ended, in {left_s} s at the latest, or use --force"
        raise StepError(_reason(reason), text or f"the home cannot be locked: {_tail(done)}")

    def unlock(self) -> None:
        self.call("unlock")

    def begin(self, name: str, release: int) -> InstalledOnDevice:
        return _installed(self.call("begin", name, str(release)))[0]

    def roll_back(self, name: str, reason: Reason) -> InstalledOnDevice:
        return _installed(self.call("rollback", name, reason))[0]

    def end(self, name: str, state: State, result: Result, reason: Reason | None) -> InstalledOnDevice:
        return _installed(self.call("end", name, state, result, reason or ""))[0]

    def status(self, name: str | None = None) -> tuple[InstalledOnDevice, ...]:
        return _installed(self.call("status", *(() if name is None else (name,))))

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the home folder.

        Raises:
            StepError: the device has no room for it, or may not write it.
            TransportError: any other failure.
        """
        try:
            self.transport.put(local, f"{self.home}/{remote}")
        except TransportError as error:
            reason = _cause(str(error))
            if reason is None:
                raise
            raise StepError(reason, str(error)) from error

    def shell(self, command: str, timeout_s: float) -> CommandResult:
        """Run a shell command of the operator's."""
        return self.transport.run(["sh", "-c", command], timeout_s)

    def release_folder(self, name: str, release: int) -> str:
        return f"{self.home}/models/{name}/releases/{release}"


@contextmanager
def opened(url: str, home: str | None) -> Iterator[Device]:
    """Connect to a device, find its home and put the script there; as :func:`open_device`.

    Raises:
        UsageError: no such transport, or a home that cannot be.
        StepError, TransportError: as of :func:`open_device`.
    """
    with plugins.transport(url) as transport:
        yield open_device(transport, home, new_owner())


def open_device(transport: Transport, home: str | None, owner: str) -> Device:
    """Find the home folder on a connected device and put the script there, if it is not yet.

    Args:
        transport: connected.
        home: absolute, or below ``~/``; by default the device's ``EDGEML_HOME``, else ``/var/lib/edgeml``
            for root and ``~/.local/share/edgeml`` for others.
        owner: as of :func:`edgeml_devices.install.owner.new_owner`.

    Raises:
        UsageError: the home is neither absolute nor below ``~/``.
        StepError: the home cannot be written, or the device has no shell.
        TransportError: the device cannot be reached.
    """
    asked = _reply(transport.run(["sh", "-c", _ASK], VERB_TIMEOUT_S).stdout)
    user_home = asked.first("home").rstrip("/")
    place = _home(home, asked.first("edgeml_home"), user_home, is_root=asked.first("uid") == "0")
    source = resources.files("edgeml_devices.install") / "device.sh"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    script = f"{place}/install/device-{digest[:12]}.sh"
    there = transport.run(["sh", "-c", _HAS_SCRIPT, "sh", script, f"{place}/install"], VERB_TIMEOUT_S)
    if there.exit_code != 0:
        text = _tail(there)
        raise StepError(_cause(text) or Reason.IO_ERROR, f"{place} cannot be made on the device: {text}")
    device = Device(transport, place, user_home, owner, script)
    if b"missing" in there.stdout:
        with resources.as_file(source) as local:
            device.put(local, script.removeprefix(f"{place}/"))
    return device


def _home(asked: str | None, variable: str, user_home: str, *, is_root: bool) -> str:
    default = ROOT_HOME if is_root else f"{user_home}/{USER_HOME}"
    home = asked or variable or default
    if home.startswith("~/"):
        home = f"{user_home}/{home.removeprefix('~/')}"
    if not home.startswith("/"):
        raise UsageError(f"--home {home}: give an absolute path on the device, or one that begins with ~/")
    return home.rstrip("/")


def _reply(stdout: bytes) -> Reply:
    lines = (line.partition(":") for line in stdout.decode(errors="replace").splitlines())
    return Reply(tuple((key, value) for key, colon, value in lines if colon))


def _installed(reply: Reply) -> tuple[InstalledOnDevice, ...]:
    found: list[dict[str, str]] = []
    for key, value in reply.lines:
        if key == "model":
            found.append({})
        if found:
            found[-1][key] = value
    return tuple(_one(values) for values in found)


def _one(values: Mapping[str, str]) -> InstalledOnDevice:
    def number(key: str) -> int | None:
        text = values.get(key, "")
        return int(text) if text.isdecimal() else None

    state = values.get("state", "")
    return InstalledOnDevice(
        name=values["model"],
        running=number("running"),
        previous=number("previous"),
        variants=tuple(filter(None, values.get("variants", "").split(","))),
        manifest_sha256=values.get("manifest", ""),
        state=State(state) if state in State.__members__ else None,
        release=number("release"),
        back=number("back"),
        starts=number("starts") or 0,
        result=values.get("result", ""),
        reason=values.get("reason", ""),
    )


def _reason(text: str) -> Reason:
    return Reason(text) if text in set(Reason) else Reason.IO_ERROR


def _cause(text: str) -> Reason | None:
    """Tell what a tool's words mean, in the C locale."""
    causes: Sequence[tuple[str, Reason]] = (
        ("No space left", Reason.DISK_FULL),
        ("uota exceeded", Reason.DISK_FULL),
        ("Read-only file system", Reason.READ_ONLY),
    )
    return next((reason for words, reason in causes if words in text), None)


def _tail(done: CommandResult) -> str:
    text = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
    return text[-500:] or f"exit code {done.exit_code}"
