"""A console line: wakes it, logs in, starts the receiver there, and exchanges requests for answers."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Final

from edgeml.errors import TransportError
from edgeml_devices.transports.serial_frames import (
    DAMAGED,
    Answer,
    ends,
    find_answer,
    request_lines,
)
from edgeml_devices.transports.serial_receiver import LEAVE, LIBRARY, launch, sums, word_sum, words

if TYPE_CHECKING:
    from edgeml_devices.transports.serial_port import SerialPort

CONNECT_TIMEOUT_S: Final = 90.0
"""For a console to be woken, logged in to and prepared; noise makes it long."""
ANSWER_TIMEOUT_S: Final = 60.0
"""A machine that answers nothing right for so long is taken for lost."""
_PATIENCE_S: Final = 0.25
_MOST_PATIENCE_S: Final = 8.0
_SETTLED_S: Final = 0.05
_MOST_SLOW: Final = 8.0
"""How many times slower than a board of its own a machine may be at its shell: an emulated, busy one."""
_ANSWER_BYTES: Final = 12_000
_DELAYED_PART: Final = 64
"""Bytes of a line for a UART that needs pauses."""
_PART: Final = 480
_LOGIN: Final = re.compile(rb"login: ?$")
_PASSWORD: Final = re.compile(rb"assword: ?$")
_TERMINAL_CODES: Final = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")
_INTERRUPT: Final = b"\x03"
_LOG_INS: Final = 4
_LAUNCHES: Final = 5
_TYPINGS: Final = 30


class SerialConsole:
    """One log-in on a console. Requests are run once each; answers are asked for until one is undamaged."""

    def __init__(self, port: SerialPort) -> None:
        self._port = port
        self._url = port.address.url
        self._byte_s = port.address.byte_s
        self._nonce = ""
        self._count = 0
        self._patience_s = _PATIENCE_S
        self._slow = 1.0
        self._logged_in = False

    @property
    def alive(self) -> bool:
        """Say whether the line stands."""
        return self._port.is_open

    def connect(self) -> None:
        """Open the port and bring the receiver to life.

        Raises:
            TransportError: no port, nobody answers, or the log-in is refused.
        """
        self._nonce = secrets.token_hex(4)
        self._count = 0
        self._patience_s = _PATIENCE_S
        self._slow = 1.0
        self._port.open()
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while True:
            self._wake(deadline)
            if self._start_receiver():
                break
        self.define(LIBRARY.encode())

    def exchange(self, script: bytes, *, once: bool = False) -> Answer | None:
        """Have the receiver run a script, and give its answer.

        Args:
            script: for the receiver's own shell; it must not end it.
            once: give None when request or answer was damaged, in place of repeating it. The script
                may have run.

        Raises:
            TransportError: no answer within :data:`ANSWER_TIMEOUT_S`, or the line is gone.
        """
        self._count += 1
        request_id = f"{self._nonce}.{self._count}"
        part = _DELAYED_PART if self._port.address.line_delay_s else _PART
        lines = request_lines(request_id, script, part)
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            self._send(lines)
            answer = self._await(request_id, sum(map(len, lines)))
            if answer is not None or once:
                return answer
            if time.monotonic() > deadline:
                self._port.close()
                raise TransportError(
                    f"{self._url}: the machine has given no undamaged answer for {ANSWER_TIMEOUT_S:g} s; "
                    "is it running, is the baud rate right, is the cable good?"
                )

    def ask(self, script: bytes) -> Answer:
        """Exchange until an undamaged answer comes."""
        answer = self.exchange(script)
        assert answer is not None  # noqa: S101 - None is for `once`
        return answer

    def define(self, script: bytes) -> Answer:
        """Run a script of any length: sent in parts that are as long as the line allows."""
        self.ask(b"script= at=0")
        size = BlockSize(64, 1024)
        done = 0
        while done < len(script):
            part = script[done : done + size.bytes]
            text = part.replace(b"'", b"'\"'\"'")
            request = b"[ $at != %d ] || { script=$script'%s' at=%d; }; echo $at"
            answer = self.exchange(request % (done, text, done + len(part)), once=not size.smallest)
            if answer is None:
                size.bad()
                continue
            size.good()
            done = int(answer.data)
        return self.ask(b'eval "$script"')

    def close(self) -> None:
        """Leave the receiver, log out if we logged in, and close the port. Idempotent."""
        try:
            if self._nonce and self._port.is_open:
                self._port.write(b"\n" + LEAVE.encode() + b"\n")
                self._settle(_SETTLED_S * 2, 2.0)
                if self._logged_in:
                    self._port.write(b"exit\n")
                    self._settle(_SETTLED_S * 2, 1.0)
        except TransportError:
            pass
        finally:
            self._nonce = ""
            self._logged_in = False
            self._port.close()

    def _send(self, lines: list[bytes]) -> None:
        delay_s = self._port.address.line_delay_s
        if not delay_s:
            self._port.write(b"".join(lines))
            return
        for line in lines:
            self._port.write(line)
            time.sleep(delay_s)

    def _await(self, request_id: str, sent_bytes: int) -> Answer | None:
        """Wait for an answer; None for a damaged one, a damaged request, or silence."""
        end = b">" + request_id.encode()
        received = b""
        begun = time.monotonic()
        quiet_s = self._patience_s + sent_bytes * self._byte_s
        limit = begun + 4 * self._patience_s + (sent_bytes + _ANSWER_BYTES) * self._byte_s * 2
        while time.monotonic() < limit:
            data = self._port.read(quiet_s)
            if not data:
                break
            quiet_s = self._patience_s
            received += data
            if end in received[-len(data) - 80 :]:
                answer = find_answer(received, request_id)
                if answer is not None:
                    taken_s = time.monotonic() - begun
                    self._patience_s = min(max(_PATIENCE_S, self._patience_s * 0.7, 2 * taken_s), 2.0)
                    return answer
                if ends(received, request_id) > 1:
                    return None
                quiet_s = _SETTLED_S  # the other copy of the last line
            elif DAMAGED.search(received[-len(data) - 3 :]):
                return None
        if _LOGIN.search(received):
            self._port.close()
            raise TransportError(
                f"{self._url}: the machine asks for a log-in: it has restarted; connect() again"
            )
        self._patience_s = min(self._patience_s * 2, _MOST_PATIENCE_S)
        return None

    def _settle(self, quiet_s: float, limit_s: float, until: re.Pattern[bytes] | None = None) -> bytes:
        """Read until nothing comes for a while, or what is awaited has come; gives what came."""
        received = b""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and (data := self._port.read(quiet_s)):
            received += data
            if until is not None and until.search(received):
                break
        return received

    def _wake(self, deadline: float) -> None:
        """Bring the console to a shell that does what it is told, through a log-in where there is one."""
        log_ins = 0
        for attempt in range(1000):
            if attempt % 3 == 2:  # noqa: PLR2004 - half a command, or a program, may stand in the way
                self._port.write(_INTERRUPT)
            self._port.write(b"\n")
            said = _plain(self._settle(_SETTLED_S * 4 * self._slow, 3.0)).rstrip(b"\n")
            if _LOGIN.search(said):
                log_ins += 1
                self._log_in(log_ins)
            elif not _PASSWORD.search(said):  # the next empty line answers that
                self._port.write(LEAVE.encode() + b"\n")
            if not _PASSWORD.search(said) and self._typed("true", 1.5 * self._slow) is not None:
                return
            self._slow = min(1.3 * self._slow, _MOST_SLOW)
            if time.monotonic() > deadline:
                seen = " ".join(said.decode(errors="replace").split())[-100:]
                raise TransportError(
                    f"{self._url}: no shell answers on the console "
                    f"({f'it says {seen!r}' if seen else 'it is silent'}); "
                    "is the machine on, is the baud rate right, are RX and TX crossed?"
                )

    def _log_in(self, time_number: int) -> None:
        """Answer a log-in prompt; a refusal shows itself by another prompt."""
        address = self._port.address
        if address.user is None:
            raise TransportError(
                f"{self._url}: the console asks for a log-in; give it: "
                "?user=NAME, and &password_env=VARIABLE where there is a password"
            )
        if time_number > _LOG_INS:
            raise TransportError(
                f"{self._url}: the log-in of {address.user!r} is refused; give another ?user=NAME, "
                "or &password_env=VARIABLE with the variable that holds the password"
            )
        self._port.write(address.user.encode() + b"\n")
        if _PASSWORD.search(self._settle(_SETTLED_S * 4, 5.0, _PASSWORD)):
            self._port.write((address.password or "").encode() + b"\n")
        self._logged_in = True
        self._settle(_SETTLED_S * 4, 3.0)

    def _start_receiver(self) -> bool:
        """Type the receiver's loop at the shell and start it; False when that does not work."""
        parts = words(self._nonce)
        if self._logged_in:
            self._typed("unset HISTFILE", 1.5)
        if not self._type_words(parts):
            return False
        for _ in range(_LAUNCHES):
            self._port.write(f" {launch(parts)}\n".encode())
            for _ in range(4):
                self._patience_s = _PATIENCE_S * 2 * self._slow
                if self.exchange(b"true", once=True) is not None:
                    return True
            self._port.write(_INTERRUPT + b"\n")
            self._settle(_SETTLED_S * 4, 1.0)
        return False

    def _type_words(self, parts: list[str]) -> bool:
        """Type the words, and again those that are not said to have arrived; False when the shell is lost."""
        missing = list(range(len(parts)))
        for _ in range(_TYPINGS):
            for number in missing:
                self._port.write(f" e{number}='{parts[number]}'\n".encode())
            self._port.write(f" {sums(missing)}\n".encode())
            typed_bytes = sum(len(parts[number]) for number in missing) * 2
            last = re.compile(rb"(?<!\d)%d \d+ \d+\r*\n" % missing[-1])
            limit_s = 5.0 * self._slow + typed_bytes * self._byte_s * 2
            said = _plain(self._settle(_SETTLED_S * 8 * self._slow, limit_s, last))
            left = [
                number
                for number in missing
                # a prompt may stand before it
                if not re.search(rb"(?<!\d)%s$" % word_sum(number, parts[number]), said, re.MULTILINE)
            ]
            if not left:
                return True
            if left == missing:
                # a damaged quote leaves the shell waiting for its end
                self._port.write(_INTERRUPT + b"\n")
                self._settle(_SETTLED_S * 4, 1.0)
                if self._typed("true", 1.5 * self._slow) is None:
                    return False
            missing = left
        return False

    def _typed(self, command: str, timeout_s: float) -> bytes | None:
        """Type a command at a shell and give what it prints; None when its end is not seen.

        The marks are written in two pieces: an echo of what is typed does not match them.
        """
        mark = secrets.token_hex(4)
        self._port.write(f" echo 'edgeml'-'{mark}'; {command}; echo '{mark}'-'edgeml'\n".encode())
        whole = re.compile(rb"edgeml-%s\n(.*?)%s-edgeml" % (mark.encode(), mark.encode()), re.DOTALL)
        received = b""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            received += self._port.read(left)
            if found := whole.search(_plain(received)):
                return found[1]
        return None


class BlockSize:
    """How much to send at once: more while it arrives, half when it is damaged."""

    def __init__(self, smallest_bytes: int, largest_bytes: int) -> None:
        self._smallest_bytes = smallest_bytes
        self._largest_bytes = largest_bytes
        self.bytes = largest_bytes
        self._arrived = 0

    @property
    def smallest(self) -> bool:
        """Say whether it can become no smaller."""
        return self.bytes <= self._smallest_bytes

    def good(self) -> None:
        """Note that one has arrived: after four in a row they become twice as large."""
        self._arrived += 1
        if self._arrived == 4:  # noqa: PLR2004 - a line where one in five is damaged is at its best
            self._arrived = 0
            self.bytes = min(self.bytes * 2, self._largest_bytes)

    def bad(self) -> None:
        """Note that one was damaged."""
        self._arrived = 0
        self.bytes = max(self.bytes // 2, self._smallest_bytes)


def _plain(received: bytes) -> bytes:
    """Give output without carriage returns and terminal codes."""
    return _TERMINAL_CODES.sub(b"", received)
