"""edgeml onto a bare board: a virtual environment of its own, beside the one before, then one rename."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import edgeml
from edgeml.errors import EdgemlError, InstallError
from edgeml.transport import CommandResult, Transport
from edgeml_devices.install.device import ROOT_HOME, USER_HOME
from edgeml_devices.install.wheels import Wheel, suitable

ROOT_PREFIX: Final = "/opt/edgeml"
USER_PREFIX: Final = USER_HOME
COMMAND_TIMEOUT_S: Final = 120.0
PIP_TIMEOUT_S: Final = 3600.0
"""A small board with a slow card and a slow line."""
LATEST_FIRST: Final = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
SERVICE: Final = "edgeml-agent"
# -P below: a folder called edgeml where the shell happens to stand is not edgeml
_LOOK: Final = f"""
LC_ALL=C; export LC_ALL
echo "uid:$(id -u)"; echo "home:${{HOME:-}}"
[ ! -d /run/systemd/system ] || echo systemd:yes
for python in {" ".join(LATEST_FIRST)}; do
    command -v "$python" >/dev/null 2>&1 || continue
    echo "found:$("$python" -c 'import sys; print(*sys.version_info[:3], sep=".")' 2>/dev/null)"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    echo "python:$(command -v "$python")"
    "$python" -c 'import ensurepip, venv' 2>/dev/null && echo venv:yes
    break
done
"""
_TAGS: Final = "from pip._vendor.packaging.tags import sys_tags; print(*sys_tags(), sep=chr(10))"
_HASHES: Final = """
import hashlib, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("*.whl"):
    print(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
"""
# as in device.sh: a link is moved into its folder, which is one rename(2)
_POINT: Final = """
set -e
mkdir -p "$1/.link"; rm -f "$1/.link/$2"; ln -s "$3" "$1/.link/$2"
sync; mv -f "$1/.link/$2" "$1"; rmdir "$1/.link"; sync
"""


@dataclass(frozen=True, slots=True)
class Board:
    """What a bare board says of itself."""

    python: str
    prefix: str
    """Where edgeml goes."""
    home: str
    """The agent's ``EDGEML_HOME``."""
    is_root: bool
    has_systemd: bool


@dataclass(frozen=True, slots=True)
class Join:
    """How the board's agent joins a server."""

    server: str
    token: str
    options: tuple[str, ...]
    """Of ``edgeml agent enrol``: name, labels, how the first root is trusted."""
    root: Path | None = None
    """The repository's first root metadata, to be copied there."""
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What came of it."""

    prefix: str
    version: str
    was_there: bool
    sent_bytes: int
    agent: str
    """``none``, ``enrolled`` (to be started by hand), or ``service``."""


Say = Callable[[str], None]


class Provisioner:
    """Provisions one connected device."""

    def __init__(self, transport: Transport, say: Say) -> None:
        self._transport = transport
        self._say = say

    def look(self, prefix: str | None, home: str | None) -> Board:
        """Find a Python that serves.

        Raises:
            InstallError: there is none, or it lacks venv; says what to install.
        """
        done = self._run(["sh", "-c", _LOOK])
        lines = [line.partition(":") for line in done.stdout.decode(errors="replace").splitlines()]
        said = {key: value for key, _, value in lines}
        if "python" not in said:
            found = ", ".join(value for key, _, value in lines if key == "found" and value) or "none"
            raise InstallError(f"the device has no Python 3.11 or newer (found: {found}); install one there")
        if "venv" not in said:
            raise InstallError(
                f"{said['python']} on the device has no venv; there: apt-get install python3-venv"
            )
        is_root = said["uid"] == "0"
        user_prefix = f"{said['home'].rstrip('/')}/{USER_PREFIX}"
        return Board(
            said["python"],
            prefix or (ROOT_PREFIX if is_root else user_prefix),
            home or (ROOT_HOME if is_root else user_prefix),
            is_root,
            "systemd" in said,
        )

    def provision(
        self, board: Board, wheels: Sequence[Wheel], *, index_free: bool, join: Join | None
    ) -> Provisioned:
        """Bring edgeml, of this version, and the agent there. Done again, it changes nothing.

        Raises:
            InstallError: a step failed; what ran before runs on.
            UsageError: a wheel is for other machines only.
        """
        key = _key(wheels, index_free=index_free)
        place = f"{board.prefix}/venvs/{key}"
        before = self._link(board)
        was_there = before == f"venvs/{key}" and self._works(place)
        sent_bytes = 0
        if was_there:
            self._say(f"edgeml {edgeml.__version__} is there already")
        else:
            try:
                sent_bytes = self._make(board, place, wheels, index_free=index_free)
            except BaseException:
                with suppress(EdgemlError):
                    self._do(f"rm -rf {_q(place)}")
                raise
            self._point(board, f"venvs/{key}")
        agent = self._agent(board, join)
        if not was_there:
            self._restart(board, before)
            self._clean(board, key, before)
        return Provisioned(board.prefix, edgeml.__version__, was_there, sent_bytes, agent)

    # --- the environment

    def _make(self, board: Board, place: str, wheels: Sequence[Wheel], *, index_free: bool) -> int:
        self._say(f"making {place} with {board.python}")
        self._do(f"rm -rf {_q(place)} && mkdir -p {_q(board.prefix)}/venvs {_q(board.prefix)}/wheels")
        self._checked([board.python, "-I", "-m", "venv", place], PIP_TIMEOUT_S)
        python = f"{place}/bin/python"
        sent_bytes = self._send(board, python, wheels)
        argv = [python, "-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        argv += ["--find-links", f"{board.prefix}/wheels"] if wheels else []
        argv += ["--no-index"] if index_free else []
        self._say("installing")
        self._checked([*argv, f"edgeml-core[device]=={edgeml.__version__}"], PIP_TIMEOUT_S)
        if not self._works(place):
            raise InstallError(f"edgeml in {place} does not start; the device uses what it had")
        return sent_bytes

    def _send(self, board: Board, python: str, wheels: Sequence[Wheel]) -> int:
        if not wheels:
            return 0
        fit = suitable(wheels, self._checked([python, "-I", "-c", _TAGS]).stdout.decode().split())
        folder = f"{board.prefix}/wheels"
        there = set(self._checked([python, "-I", "-c", _HASHES, folder]).stdout.decode().splitlines())
        sent_bytes = 0
        for wheel in fit:
            if f"{wheel.sha256} {wheel.path.name}" in there:
                continue
            self._say(f"sending {wheel.path.name}")
            self._transport.put(wheel.path, f"{folder}/{wheel.path.name}")
            sent_bytes += wheel.path.stat().st_size
        there = set(self._checked([python, "-I", "-c", _HASHES, folder]).stdout.decode().splitlines())
        for wheel in fit:
            if f"{wheel.sha256} {wheel.path.name}" not in there:
                raise InstallError(f"{wheel.path.name} did not arrive as it was sent; try again")
        # others must not be installed in their place
        for name in {line.partition(" ")[2] for line in there} - {wheel.path.name for wheel in fit}:
            self._do(f"rm -f {_q(f'{folder}/{name}')}")
        return sent_bytes

    def _works(self, place: str) -> bool:
        done = self._run([f"{place}/bin/python", "-I", "-m", "edgeml", "doctor", "--json"], PIP_TIMEOUT_S)
        try:
            return bool(json.loads(done.stdout)["checks"])
        except (ValueError, LookupError, TypeError):
            return False

    def _link(self, board: Board) -> str:
        done = self._run(["sh", "-c", 'readlink "$1"', "sh", f"{board.prefix}/venv"])
        return done.stdout.decode().strip()

    def _point(self, board: Board, target: str) -> None:
        for name, leads in (("venv", target), ("bin", "venv/bin")):
            self._checked(["sh", "-c", _POINT, "sh", board.prefix, name, leads])

    def _clean(self, board: Board, key: str, before: str) -> None:
        """Keep this environment and the one before it."""
        kept = {key, before.removeprefix("venvs/")}
        done = self._run(["sh", "-c", 'ls "$1"', "sh", f"{board.prefix}/venvs"])
        for name in done.stdout.decode().split():
            if name not in kept:
                self._do(f"rm -rf {_q(f'{board.prefix}/venvs/{name}')}")

    # --- the agent

    def _agent(self, board: Board, join: Join | None) -> str:
        if join is None:
            return "none"
        if self._run(["sh", "-c", '[ -e "$1" ]', "sh", f"{board.home}/identity.json"]).exit_code == 0:
            self._say(f"an agent is enrolled in {board.home} already")
        else:
            self._enrol(board, join)
        if not (board.is_root and board.has_systemd):
            return "enrolled"
        self._say(f"starting {SERVICE}")
        # by the link, not by what it leads to: the next provisioning changes the link
        self._checked(
            [
                f"{board.prefix}/venv/bin/python",
                "-I",
                "-m",
                "edgeml",
                "agent",
                "install",
                "--home",
                board.home,
            ]
        )
        self._checked(["systemctl", "enable", "--now", SERVICE])
        return "service"

    def _enrol(self, board: Board, join: Join) -> None:
        self._say(f"joining {join.server}")
        folder = f"{board.home}/join"
        self._do(f"mkdir -p {_q(board.home)} && rm -rf {_q(folder)} && mkdir -m 0700 {_q(folder)}")
        argv = [
            f"{board.prefix}/venv/bin/python",
            "-I",
            "-m",
            "edgeml",
            "agent",
            "enrol",
            "--server",
            join.server,
        ]
        argv += ["--join-token", "-", *join.options]
        try:
            with tempfile.TemporaryDirectory(prefix="edgeml-provision-") as scratch:
                token = Path(scratch, "token")
                token.write_text(f"{join.token}\n")
                # a file in a folder of root's: arguments are for every process to see
                self._transport.put(token, f"{folder}/token")
            for option, file in (("--root", join.root), ("--ca-file", join.ca_file)):
                if file is not None:
                    place = f"{board.home}/{file.name}" if option == "--ca-file" else f"{folder}/{file.name}"
                    self._transport.put(file, place)
                    argv += [option, place]
            line = f"EDGEML_HOME={_q(board.home)} {shlex.join(argv)} <{_q(folder)}/token"
            self._checked(["sh", "-c", line], PIP_TIMEOUT_S)
        finally:
            self._run(["rm", "-rf", folder])

    def _restart(self, board: Board, before: str) -> None:
        """Let a running agent take up the new environment; back to the old one if it does not start."""
        if not board.has_systemd or self._run(["systemctl", "is-active", "-q", SERVICE]).exit_code != 0:
            return
        self._run(["systemctl", "restart", SERVICE])
        settled = self._run(["sh", "-c", f"sleep 5; systemctl is-active -q {SERVICE}"])
        if settled.exit_code == 0:
            return
        if before:
            self._point(board, before)
            self._run(["systemctl", "restart", SERVICE])
        raise InstallError(
            f"the agent did not start with edgeml {edgeml.__version__}; it runs with what was there before"
        )

    # --- commands

    def _run(self, argv: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> CommandResult:
        return self._transport.run(argv, timeout_s)

    def _checked(self, argv: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> CommandResult:
        done = self._run(argv, timeout_s)
        if done.exit_code != 0:
            text = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-1000:]
            raise InstallError(f"on the device `{' '.join(argv[:4])} …` ended with {done.exit_code}: {text}")
        return done

    def _do(self, line: str) -> None:
        self._checked(["sh", "-c", line])


def _key(wheels: Sequence[Wheel], *, index_free: bool) -> str:
    """Name an environment by what goes into it."""
    digest = hashlib.sha256(
        repr((sorted((wheel.path.name, wheel.sha256) for wheel in wheels), index_free)).encode()
    )
    return f"{edgeml.__version__}-{digest.hexdigest()[:8]}"


def _q(text: str) -> str:
    return shlex.quote(text)
