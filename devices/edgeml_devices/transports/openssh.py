"""The OpenSSH client as a process: its arguments, one connection for all commands, its errors explained."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from edgeml.errors import TransportError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_TIMEOUT_S: Final = 15
OPEN_TIMEOUT_S: Final = 60.0
"""From the start of the client to a shell that answers: name look-up, jump hosts, hardware keys."""
KEEPALIVE_S: Final = 5
KEEPALIVES: Final = 3
"""Unanswered, after which the client gives a silent connection up (ssh_config(5), ServerAliveCountMax)."""
LOST: Final = 255
"""What the client exits with when the connection, not the command, failed (ssh(1))."""
_SOCKET_PATH_BYTES: Final = 80
"""A UNIX socket's path ends at 104 to 108 bytes; the client appends 17 while it binds."""
_OPTIONS: Final = (
    "BatchMode=yes",
    "ClearAllForwardings=yes",
    f"ConnectTimeout={CONNECT_TIMEOUT_S}",
    f"ServerAliveInterval={KEEPALIVE_S}",
    f"ServerAliveCountMax={KEEPALIVES}",
    "LogLevel=ERROR",
    "RemoteCommand=none",
    "ControlPersist=no",
)
_QUERY: Final = ("config", "identity")


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Where a machine is; what is None is left to the user's configuration."""

    url: str
    host: str
    user: str | None = None
    port: int | None = None
    config: str | None = None
    """A file to read in place of ``~/.ssh/config``."""
    identity: str | None = None
    """A private key: the only one offered."""

    def destination(self) -> tuple[str, ...]:
        """Give the client's arguments that say where."""
        port = () if self.port is None else ("-p", str(self.port))
        user = () if self.user is None else ("-l", self.user)
        config = () if self.config is None else ("-F", self.config)
        identity = () if self.identity is None else ("-i", self.identity, "-o", "IdentitiesOnly=yes")
        return (*config, *identity, *port, *user, "--", self.host)

    def as_typed(self) -> str:
        """Give the arguments as a person types them."""
        port = "" if self.port is None else f"-p {self.port} "
        return port + (f"{self.user}@{self.host}" if self.user else self.host)


def ssh_address(url: str) -> SshAddress:
    """Read ``ssh://user@host:port?config=FILE&identity=FILE``; only the host is needed.

    Raises:
        UsageError: it is written in another way.
    """
    wanted = f"{url!r}: write it as ssh://user@host:port, with ?config=FILE&identity=FILE where needed"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise UsageError(f"{wanted} ({error})") from error
    if parts.scheme != "ssh" or not host or parts.path not in {"", "/"} or parts.fragment:
        raise UsageError(wanted)
    if parts.password is not None:
        raise UsageError(
            f"ssh://{host}: passwords are not taken; let the machine know your key: ssh-copy-id {host}"
        )
    unknown = sorted(set(query) - set(_QUERY))
    if unknown:
        raise UsageError(f"{url!r}: {unknown[0]!r} is no option of ssh:; options are: {', '.join(_QUERY)}")
    # urlsplit gives the host in lower case; an alias of the configuration may have capitals
    written = parts.netloc.rpartition("@")[2]
    if not written.startswith("["):
        host = unquote(written.partition(":")[0])
    user = None if parts.username is None else unquote(parts.username)
    if host.startswith("-") or (user or "").startswith("-"):
        raise UsageError(wanted)
    return SshAddress(url, host, user or None, port, query.get("config"), query.get("identity"))


class SshClient:
    """One connection to a machine; each command is a channel of it.

    The connection's own process holds an idle command whose input ends when this process does,
    however it dies: nothing stays behind.
    """

    def __init__(self, address: SshAddress) -> None:
        self.address = address
        self._program = ""
        self._folder: str | None = None
        self._master: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Say whether the connection stands."""
        return self._master is not None and self._master.poll() is None

    def open(self) -> None:
        """Connect.

        Raises:
            TransportError: no client, no way, no key that the machine takes, or a host key not known.
        """
        self.close()
        self._program = shutil.which("ssh") or ""
        if not self._program:
            raise TransportError(
                f"{self.address.url}: there is no ssh on this machine; install the OpenSSH client "
                "(package openssh-client)"
            )
        self._folder = _private_folder()
        try:
            self._open_master()
        except BaseException:
            self.close()
            raise

    def start(self, command: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a command line for the machine's shell, as a process of the client.

        In a session of its own, so that Ctrl-C at the terminal is handled here and not by the client.
        """
        return subprocess.Popen(
            [self._program, *self._arguments("ControlMaster=no"), command], start_new_session=True, **streams
        )

    def close(self) -> None:
        """Disconnect. Idempotent."""
        master, self._master = self._master, None
        if master is not None:
            for stream in (master.stdin, master.stdout, master.stderr):
                if stream is not None:
                    stream.close()
            master.terminate()
            try:
                master.wait(2)
            except subprocess.TimeoutExpired:
                master.kill()
                master.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def lost(self, said: bytes, doing: str) -> TransportError:
        """Make an error of what the client printed when it could not go on; the connection is closed."""
        self.close()
        return TransportError(f"{self.address.url}: {doing}: {explained(said, self.address)}")

    def _open_master(self) -> None:
        word = f"edgeml-{secrets.token_hex(8)}"
        with tempfile.TemporaryFile() as said:
            master = subprocess.Popen(
                [self._program, *self._arguments("ControlMaster=yes"), f"echo {word}; exec cat >/dev/null"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
            self._master = master
            if not _says(master, word.encode(), OPEN_TIMEOUT_S):
                timed_out = master.poll() is None
                said.seek(0)
                text = b"it did not answer in time" if timed_out else said.read()
                raise self.lost(text, "cannot connect")

    def _arguments(self, mode: str) -> Sequence[str]:
        socket = f"{self._folder}/s".replace("%", "%%")
        options = (word for option in (*_OPTIONS, mode) for word in ("-o", option))
        return ["-T", "-x", "-S", socket, *options, *self.address.destination()]


def explained(said: bytes, address: SshAddress) -> str:
    """Say what to do about an error of the client, by the words that it has used for years."""
    text = " ".join(said.decode(errors="replace").split()).strip(" @") or "the connection was lost"
    typed = address.as_typed()
    name = address.host if address.port in {None, 22} else f"[{address.host}]:{address.port}"
    if "IDENTIFICATION HAS CHANGED" in text:
        return (
            "its host key is not the one that is known: another machine, or one that was set up anew. "
            f"If you know why: ssh-keygen -R '{name}', then connect once with: ssh {typed}"
        )
    if "Host key verification failed" in text or "host key is known" in text:
        return (
            "its host key is not known. Compare its fingerprint and accept it once: "
            f"ssh {typed} (or add the output of ssh-keyscan to known_hosts)"
        )
    if "Permission denied" in text:
        return f"{text[-200:]}: it takes none of your keys; let it know one: ssh-copy-id {typed}"
    return text[-300:]


def _private_folder() -> str:
    """Make a folder for the connection's socket, short enough for one."""
    folder = tempfile.mkdtemp(prefix="edgeml-ssh-")
    if len(os.fsencode(folder)) <= _SOCKET_PATH_BYTES:
        return folder
    Path(folder).rmdir()
    return tempfile.mkdtemp(prefix="edgeml-ssh-", dir="/tmp")


def _says(process: subprocess.Popen[bytes], word: bytes, timeout_s: float) -> bool:
    """Wait until a line of the process's output ends in the word; shells may print before it."""
    assert process.stdout is not None  # noqa: S101 - it was asked for
    handle, seen = process.stdout.fileno(), b""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([handle], [], [], left)[0]:
            return False
        part = os.read(handle, 4096)
        if not part:
            process.wait(2)
            return False
        seen += part
        if word in seen:
            return True
    return False
