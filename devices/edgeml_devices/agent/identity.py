"""Who this device is to its server, and how it joins."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgeml import typed_json
from edgeml.errors import FleetError, MessageError, ServerError, TrustError, UsageError
from edgeml_devices.agent.client import ServerClient
from edgeml_devices.agent.disk import read_file, write_file
from edgeml_devices.agent.facts import engines_here, gather
from edgeml_devices.agent.failures import UnreachableError
from edgeml_devices.agent.home import Home, make_home
from edgeml_devices.agent.refusal import forget_refusal
from edgeml_devices.agent.trust import Trust
from edgeml_devices.messages import EnrolRequest

_UNAUTHORIZED: Final = 401
_SECRET: Final = 0o600
_TOKEN_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """``identity.json``: only its owner may read it."""

    server: str
    token: str
    device_id: str = ""
    """Empty until the server has answered: to be asked again with the same token."""
    name: str = ""
    ca_file: str | None = None
    schema: int = 1


@dataclass(frozen=True, slots=True)
class FirstRoot:
    """How the first root metadata are known to be the right ones; exactly one of them."""

    file: Path | None = None
    sha256: str | None = None
    first_seen: bool = False
    """Take whatever the server gives: trust on first use."""

    def __post_init__(self) -> None:
        if sum((self.file is not None, self.sha256 is not None, self.first_seen)) != 1:
            raise UsageError(
                "say how to know the repository's root: --root FILE or --root-sha256 HEX (`edgeml tokens "
                "join` prints it), or --trust-first-root to take the server's word"
            )


def read_identity(home: Home) -> Identity:
    """Read who this device is.

    Raises:
        UsageError: it was never enrolled, or not to the end.
        FleetError: the file cannot be read.
    """
    identity = _read(home.identity)
    if identity is None or not identity.device_id:
        raise UsageError(f"{home.path} is not enrolled: edgeml agent enrol --server URL --join-token TOKEN")
    return identity


def enrol(
    home: Home,
    request: EnrolRequest,
    root: FirstRoot,
    server_url: str,
    ca_file: Path | None,
) -> Identity:
    """Join a server; after a lost answer the same again gives the same device.

    The token is made and kept here before the server hears of it.

    Raises:
        UsageError: the device belongs to another server.
        TrustError: the repository's root is not the one that was named.
        ServerError: the server cannot be reached, or refuses.
    """
    kept = _read(home.identity)
    if kept is not None and kept.device_id and kept.server != server_url.rstrip("/"):
        raise UsageError(
            f"this device belongs to {kept.server}; remove {home.identity} and {home.trust} to move it"
        )
    ca = None if ca_file is None else str(ca_file.absolute())
    token = kept.token if kept is not None else secrets.token_urlsafe(_TOKEN_BYTES)
    identity = Identity(server_url.rstrip("/"), token, "" if kept is None else kept.device_id, "", ca)
    client = ServerClient(identity.server, ca_file=ca_file)
    make_home(home)
    try:
        _pin(Trust(home.trust), root, client)
        _write(home.identity, identity)
        facts = gather(home.path, engines_here())
        answer = client.enrol(replace(request, device_token=token, facts=facts))
    except UnreachableError as error:
        raise ServerError(f"{error}; {_what_to_do(error)}") from error
    identity = replace(identity, device_id=answer.device_id, name=answer.name)
    _write(home.identity, identity)
    forget_refusal(home)
    return identity


def _what_to_do(error: UnreachableError) -> str:
    if error.status == _UNAUTHORIZED:
        return (
            "a join token that is wrong, used up or expired stays so: ask for a new one (edgeml tokens join)"
        )
    return "run the command again, nothing is done twice"


def _pin(trust: Trust, root: FirstRoot, client: ServerClient) -> None:
    if root.file is not None:
        try:
            content = root.file.read_bytes()
        except OSError as error:
            raise UsageError(f"{root.file}: cannot be read: {error.strerror}") from error
    else:
        content = client.first_root()
        found = hashlib.sha256(content).hexdigest()
        if root.sha256 is not None and found != root.sha256.lower():
            raise TrustError(
                f"the server's first root has sha256 {found}, not {root.sha256}; this is another "
                "repository, or somebody in between: do not go on before that is clear"
            )
    trust.pin(content)


def _read(path: Path) -> Identity | None:
    try:
        return typed_json.read(Identity, typed_json.parse(read_file(path), str(path)), str(path))
    except FileNotFoundError:
        return None
    except (OSError, MessageError) as error:
        raise FleetError(f"{path} cannot be read: {error}; remove it and enrol again") from error


def _write(path: Path, identity: Identity) -> None:
    write_file(path, json.dumps(typed_json.write(identity), indent=1).encode() + b"\n", _SECRET)
