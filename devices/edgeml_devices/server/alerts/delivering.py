"""One message to one receiver: by HTTP, by mail, or to a command. An error means: try again later."""

from __future__ import annotations

import asyncio
import json
import smtplib
import ssl
import subprocess
from collections.abc import Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3

from edgeml.errors import ServerError
from edgeml_devices.server.alerts.receivers import Email, Receiver, as_text

TIMEOUT_S: Final = 20.0
_OUTPUT: Final = 300
"""Characters of what a command says that are kept."""


async def deliver(receiver: Receiver, body: Mapping[str, Any]) -> None:
    """Deliver a message.

    Raises:
        ServerError: it was not delivered, and why.
    """
    work = _post if receiver.webhook else _mail if receiver.email is not None else _run
    try:
        await asyncio.to_thread(work, receiver, body)
    except (
        OSError,
        urllib3.exceptions.HTTPError,
        smtplib.SMTPException,
        subprocess.SubprocessError,
    ) as error:
        raise ServerError(f"{receiver.name}: {error}") from error


def _post(receiver: Receiver, body: Mapping[str, Any]) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "edgeml"}
    if receiver.token_file:
        headers["Authorization"] = f"Bearer {Path(receiver.token_file).read_text().strip()}"
    with urllib3.PoolManager(retries=False, timeout=TIMEOUT_S) as pool:
        answer = pool.request(
            "POST", receiver.webhook, body=json.dumps(body), headers=headers, redirect=False
        )
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's
        raise ServerError(f"{receiver.name}: the webhook answered HTTP {answer.status}")


def _mail(receiver: Receiver, body: Mapping[str, Any]) -> None:
    mail = receiver.email
    assert mail is not None  # noqa: S101 - the caller looked
    subject, text = as_text(body)
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, mail.sender, ", ".join(mail.to)
    message.set_content(text)
    with _connect(mail) as server:
        if mail.user:
            server.login(mail.user, Path(mail.password_file).read_text().strip())
        server.send_message(message)


def _connect(mail: Email) -> smtplib.SMTP:
    parts = urlsplit(mail.server)
    host, context = parts.hostname or "", ssl.create_default_context()
    if parts.scheme == "smtps":
        return smtplib.SMTP_SSL(host, parts.port or 465, timeout=TIMEOUT_S, context=context)
    server = smtplib.SMTP(host, parts.port or 25, timeout=TIMEOUT_S)
    server.ehlo()
    if server.has_extn("starttls"):
        server.starttls(context=context)
        server.ehlo()
    elif mail.user:
        server.close()
        raise ServerError(f"{mail.server} offers no TLS: the password is not sent in the clear")
    return server


def _run(receiver: Receiver, body: Mapping[str, Any]) -> None:
    done = subprocess.run(
        receiver.command,
        input=json.dumps(body).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip()[-_OUTPUT:]
        raise ServerError(f"{receiver.name}: {receiver.command[0]} ended with {done.returncode}: {said}")
