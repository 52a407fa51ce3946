"""Installing from a file where no agent runs: the same machine and the same trust, for one model."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeml import health
from edgeml.bundle import open_bundle
from edgeml.errors import TrustError, UsageError
from edgeml_devices.agent.beats import receive
from edgeml_devices.agent.config import AgentConfig
from edgeml_devices.agent.deployment import Deployment, Tools, Wish
from edgeml_devices.agent.desired import Carried, Desired, carried_in
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.lock import sole_agent
from edgeml_devices.agent.machine import advance, recover
from edgeml_devices.agent.origins import Origin, SignedOrigin, UnsignedOrigin
from edgeml_devices.agent.record import StateRecord, new_record
from edgeml_devices.agent.service import make_tools, next_attempt
from edgeml_devices.agent.sources import FolderSource
from edgeml_devices.agent.trust import Trust
from edgeml_devices.messages import Assignment


def trust_carried_root(trust: Trust, folder: Path, sha256: str) -> None:
    """Trust the repository whose first root lies in an exported folder, if it is the one expected.

    Raises:
        UsageError: the folder holds no first root.
        TrustError: it is another one.
    """
    file = folder / "metadata" / "1.root.json"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file}: cannot be read: {error.strerror}; give the root with --root FILE"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise TrustError(
            f"{file} has sha256 {found}, not {sha256}; this is another repository: do not go on before that "
            "is clear"
        )
    trust.pin(content)


def signed_release(trust: Trust, folder: Path) -> tuple[Origin, Carried]:
    """Give the release in an exported folder, the newest if there are several of one model.

    Raises:
        UsageError: it holds none, several models, or this device trusts no repository.
    """
    found = carried_in(folder)
    models = {one.model for one in found}
    if len(models) != 1:
        what = f"holds several models: {', '.join(sorted(models))}" if models else "holds no release"
        raise UsageError(f"{folder} {what}; it is made by: edgeml releases export MODEL RELEASE")
    if not trust.is_pinned:
        raise UsageError(
            "this device trusts no repository yet: give its first root with --root FILE or --root-sha256 HEX"
        )
    newest = max(found, key=lambda one: one.release)
    return SignedOrigin(trust, FolderSource(folder), offline=True), newest


def unsigned_release(trust: Trust, bundle: Path) -> tuple[Origin, Carried]:
    """Give the release in a bundle that nobody signed.

    Raises:
        UsageError: this device trusts a repository, and so takes signed releases only.
        BundleError: no bundle, or a damaged one.
    """
    if trust.is_pinned:
        raise UsageError(
            "this device trusts a repository and takes signed releases only: "
            "edgeml releases export MODEL RELEASE, and install that folder"
        )
    opened = open_bundle(bundle)
    name, release = opened.manifest.name, opened.manifest.release
    return UnsignedOrigin(bundle, opened.manifest), Carried(bundle, name, release)


def install(
    home: Home,
    config: AgentConfig,
    origin: Origin,
    carried: Carried,
    told: Callable[[StateRecord], None],
) -> StateRecord:
    """Run the state machine until the release is committed, or not; give the record.

    Args:
        home: of the device; no agent may work in it.
        config: of the device.
        origin: of the release.
        carried: which one it is.
        told: called with each state entered.

    Raises:
        FleetError: an agent works in this home folder.
        OSError: the home folder cannot be written.
    """
    with sole_agent(home), _listening(home, make_tools(home, config, Trust(home.trust))) as tools:
        model = home.model(carried.model)
        server = Desired(home, origin).wish(carried.model)
        wish: Wish | None = None
        deployment = Deployment(tools, model, new_record(model.name), lambda: wish)
        recover(deployment)
        assignment = Assignment(carried.release, next_attempt(deployment.record, carried.release))
        wish = Wish(assignment, origin, overrules=None if server is None else server.key)
        while advance(deployment):
            told(deployment.record)
        return deployment.record


@contextmanager
def _listening(home: Home, tools: Tools) -> Iterator[Tools]:
    """Hand beats to the tools: a probation may need them."""
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            receive(receiver, tools.beats, 0.2)

    with health.listen(home.path) as receiver:
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield tools
        finally:
            ended.set()
            thread.join()
