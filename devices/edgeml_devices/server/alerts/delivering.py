"""One message to one receiver: by HTTP, by mail, or to a command. An error means: try again later.

Whatever a receiver does, a delivery ends in time, and neither holds up others nor the end of the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import smtplib
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

import urllib3

from edgeml.errors import ServerError
from edgeml_devices.server.alerts.receivers import Email, Receiver, as_text

_OUTPUT: Final = 300
"""Characters of what a command says that are kept."""
_LOOK_S: Final = 0.05
_PIECE: Final = 64 * 1024
_SHORTEST_SECRET: Final = 4
"""Characters; a shorter path is no secret."""
_Work = Callable[[Receiver, Mapping[str, Any]], None]


class Deliveries:
    """Delivers; remembers whose last delivery still hangs, so that no more than one of each does."""

    def __init__(self) -> None:
        self._hanging: dict[str, threading.Thread] = {}

    async def deliver(self, receiver: Receiver, body: Mapping[str, Any]) -> None:
        """Deliver a message.

        Raises:
            ServerError: it was not delivered, and why; no secret of the receiver is in it.
        """
        try:
            async with asyncio.timeout(receiver.timeout_s):
                if receiver.command:
                    await _run(receiver, body)
                else:
                    await self._beside(_post if receiver.webhook else _mail, receiver, body)
        except ServerError:
            raise
        except TimeoutError as error:
            raise ServerError(f"{receiver.name}: no success within {receiver.timeout_s:g} s") from error
        except (OSError, urllib3.exceptions.HTTPError, smtplib.SMTPException) as error:
            raise ServerError(f"{receiver.name}: {_without_address(str(error), receiver)}") from error
        except Exception as error:  # noqa: BLE001 - told by its kind
            # its text may hold what a file of secrets holds
            problem = f"{type(error).__name__}; can what its settings and files hold be sent?"
            raise ServerError(f"{receiver.name}: {problem}") from None

    async def _beside(self, work: _Work, receiver: Receiver, body: Mapping[str, Any]) -> None:
        """Work in a thread that nobody waits for: libraries bound the time of a byte, not of an answer."""
        last = self._hanging.get(receiver.name)
        if last is not None and last.is_alive():
            raise ServerError(f"{receiver.name}: the last delivery still hangs")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def run() -> None:
            error: BaseException | None = None
            try:
                work(receiver, body)
            except Exception as failure:  # noqa: BLE001 - goes to whoever waits for it
                error = failure
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, error)

        self._hanging[receiver.name] = thread = threading.Thread(target=run, daemon=True)
        thread.start()
        await done


def _without_address(text: str, receiver: Receiver) -> str:
    """Leave out of an error what of a webhook's address may be a secret: user, path, query."""
    parts = urlsplit(receiver.webhook)
    user = parts.netloc.rpartition("@")[0]
    for secret in (f"{parts.path}?{parts.query}", parts.path, parts.query, user):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text


def _post(receiver: Receiver, body: Mapping[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "edgeml"}
    if receiver.token_file:
        headers["Authorization"] = f"Bearer {Path(receiver.token_file).read_text().strip()}"
    with urllib3.PoolManager(retries=False, timeout=receiver.timeout_s) as pool:
        # what it says besides is not read: it may have no end
        answer = pool.request(
            "POST",
            receiver.webhook,
            body=json.dumps(body),
            headers=headers,
            redirect=False,
            preload_content=False,
        )
        answer.close()
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's
        raise ServerError(f"{receiver.name}: the webhook answered HTTP {answer.status}")


def _mail(receiver: Receiver, body: Mapping[str, Any]) -> None:
    mail = receiver.email
    assert mail is not None  # noqa: S101 - the caller looked
    subject, text = as_text(body)
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, mail.sender, ", ".join(mail.to)
    message.set_content(text)
    with _connect(mail, receiver.timeout_s) as server:
        if mail.user:
            server.login(mail.user, Path(mail.password_file).read_text().strip())
        server.send_message(message)


def _connect(mail: Email, timeout_s: float) -> smtplib.SMTP:
    parts = urlsplit(mail.server)
    host, context = parts.hostname or "", ssl.create_default_context()
    if parts.scheme == "smtps":
        return smtplib.SMTP_SSL(host, parts.port or 465, timeout=timeout_s, context=context)
    server = smtplib.SMTP(host, parts.port or 25, timeout=timeout_s)
    server.ehlo()
    if server.has_extn("starttls"):
        server.starttls(context=context)
        server.ehlo()
    elif mail.user:
        server.close()
        raise ServerError(f"{mail.server} offers no TLS: the password is not sent in the clear")
    return server


async def _run(receiver: Receiver, body: Mapping[str, Any]) -> None:
    """Run a command until it ends, whatever it started goes on doing; killed with that if it must be."""
    with tempfile.TemporaryFile() as given:
        given.write(json.dumps(body).encode())
        given.seek(0)
        process = subprocess.Popen(  # noqa: ASYNC220 - its pipe is never waited for
            receiver.command,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    said = b""
    assert process.stdout is not None  # noqa: S101 - a pipe, as asked for
    with process.stdout as output:
        os.set_blocking(output.fileno(), False)
        try:
            while process.poll() is None:
                said = _last_words(output, said)
                await asyncio.sleep(_LOOK_S)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        said = _last_words(output, said)
    if process.returncode != 0:
        text = said.decode(errors="replace").strip()[-_OUTPUT:]
        raise ServerError(f"{receiver.name}: {receiver.command[0]} ended with {process.returncode}: {text}")


def _last_words(output: IO[bytes], before: bytes) -> bytes:
    """Read what is there, no longer than a moment: it may have no end."""
    until = time.monotonic() + _LOOK_S / 5
    while time.monotonic() < until:
        try:
            piece = os.read(output.fileno(), _PIECE)
        except BlockingIOError:
            break
        if not piece:
            break
        before = (before + piece)[-4 * _OUTPUT :]
    return before
