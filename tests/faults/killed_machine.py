"""The agent's state machine in processes that are really killed, at a state, a system call or an instant.

A child is forked for each run: it has all modules, and dies by SIGKILL. A power cut beside that takes back
what was not synced: bytes written since the last fsync of a file, entries made since the last fsync of their
folder. That is stricter than ext4, which orders more than POSIX asks for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeml_devices.agent import deployment as deployments
from edgeml_devices.agent import machine
from edgeml_devices.agent.beats import Beats
from edgeml_devices.agent.blobs import BlobStore
from edgeml_devices.agent.config import AgentConfig
from edgeml_devices.agent.deployment import Deployment, Tools, Wish
from edgeml_devices.agent.failures import StepFailedError
from edgeml_devices.agent.home import Home
from edgeml_devices.agent.origins import SignedOrigin
from edgeml_devices.agent.outbox import Outbox
from edgeml_devices.agent.record import new_record
from edgeml_devices.agent.sources import FolderSource
from edgeml_devices.agent.trust import Trust
from edgeml_devices.messages import Assignment, State

from edgeml.health import HealthPolicy
from edgeml.installed import InstalledModel, needed_files, read_installation
from edgeml.manifest_json import loads
from edgeml.selftest import SelftestResult, run_selftest
from edgeml.targets import host
from tests.faults.power_cut_disk import Disk
from tests.integration.agent.bundles import scaled
from tests.integration.agent.tiny_repository import TinyRepository

MODEL = "times"
ENDED, KILLED = "ended", "killed"


@dataclass
class World:
    """A repository of three releases of ``times``; the third fails its golden samples."""

    folder: Path
    repository: TinyRepository = field(init=False)
    signed: dict[int, str] = field(default_factory=dict)
    """Release to the hash of its manifest."""

    def __post_init__(self) -> None:
        self.repository = TinyRepository(self.folder / "repository", {MODEL: MODEL})
        for release in (1, 2, 3):
            bundle = scaled(
                self.folder / "bundles",
                release,
                health={"probation_s": 0.02},
                golden_factor=1.0 if release == 3 else None,
                padding_bytes=100_000,
            )
            self.signed[release] = self.repository.publish(bundle)

    def new_home(self, path: Path) -> Home:
        home = Home(path)
        Trust(home.trust).pin(self.repository.first_root)
        return home

    def deployment(
        self,
        home: Home,
        release: int | None,
        attempt: int = 1,
        selftest: Callable[[Path, str, HealthPolicy], SelftestResult] | None = None,
        config: AgentConfig | None = None,
        beats: Beats | None = None,
    ) -> Deployment:
        """Give the deployment of a release from the repository's folder."""
        trust = Trust(home.trust)
        tools = Tools(
            home=home,
            config=config or AgentConfig(),
            store=BlobStore(home.blobs),
            outbox=Outbox(home.outbox),
            beats=beats or Beats(),
            machine=lambda: (host(), {"onnxruntime": "99", "litert": "99"}),
            selftest=selftest or quick_selftest,
            floor=trust.floor,
        )
        wish = Wish(
            Assignment(release, attempt),
            SignedOrigin(trust, FolderSource(self.repository.folder), offline=True),
        )
        model = home.model(MODEL)
        return Deployment(tools, model, new_record(MODEL), lambda: wish)

    def why_unsafe(self, home: Home) -> str | None:  # noqa: PLR0911 - one for each way to be unsafe
        """Say what is wrong with what runs; ``None``: nothing runs, or a whole, verified release does."""
        model = home.model(MODEL)
        if not model.current.is_symlink():
            return None
        running = model.running()
        if running not in self.signed:
            return f"current leads to {model.current.readlink()}"
        folder = model.release_folder(running)
        if not folder.is_dir():
            return f"current leads to {folder.name}, which is not there"
        content = (folder / "manifest.json").read_bytes()
        if hashlib.sha256(content).hexdigest() != self.signed[running]:
            return f"the manifest of {running} is not the signed one"
        installation = read_installation(folder)
        if installation.manifest_sha256 != self.signed[running]:
            return f"installed.json of {running} names another manifest"
        for entry in needed_files(loads(content), installation.variants):
            try:
                found = hashlib.sha256((folder / entry.path).read_bytes()).hexdigest()
            except OSError as error:
                return f"{entry.path} of {running}: {error}"
            if found != entry.sha256:
                return f"{entry.path} of {running} is not what was signed"
        return None


def copy_home(source: Path, target: Path) -> Home:
    """Copy a home folder with its links; what were hard links are files of their own then."""
    shutil.copytree(source, target, symlinks=True)
    return Home(target)


# --- self-tests


def quick_selftest(folder: Path, variant: str, policy: HealthPolicy) -> SelftestResult:
    """Run a child process that reads the model's files; it has no engine, so that hundreds of runs are quick.

    Release 3, whose golden samples are wrong, fails as it does with its engine.
    """
    del policy
    script = 'cat "$0"/variants/*/* "$0"/golden/* > /dev/null && test "${0##*/}" != 3'
    done = subprocess.run(["/bin/sh", "-c", script, str(folder)], check=False, start_new_session=True)
    passed = done.returncode == 0
    return SelftestResult(variant, passed, None if passed else "parity", "" if passed else "other outputs")


def real_selftest(folder: Path, variant: str, policy: HealthPolicy) -> SelftestResult:
    return run_selftest(folder, variant, policy, timeout_s=60)


# --- kills


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Kill:
    """When the child dies."""

    state: State | None = None
    """Count calls in this state only."""
    call: int | None = None
    """Die at this call, from 0."""
    after: bool = False
    """Once the call was made; else just before."""
    at: str = ""
    """``entry`` or ``exit`` of ``state``: before its work, or after it with nothing written yet."""
    after_s: float | None = None
    """Die so long after the start."""
    power_cut: bool = False


def run_child(make: Callable[[], Deployment], kill: Kill | None = None) -> str:
    """Recover and run a deployment in a child until it rests or dies."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _child(make, kill or Kill())
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - the child must not return into pytest
            os.write(2, f"child: {type(error).__name__}: {error}\n".encode())
            os._exit(1)
    if kill is not None and kill.after_s is not None:
        deadline = time.monotonic() + kill.after_s
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return _how(status)
            time.sleep(0.0005)
        os.kill(pid, signal.SIGKILL)
    return _how(os.waitpid(pid, 0)[1])


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return KILLED
    assert os.WEXITSTATUS(status) == 0, "the child failed"
    return ENDED


def _child(make: Callable[[], Deployment], kill: Kill) -> None:
    deployment = make()
    folder = deployment.tools.home.path.parent
    disk = None if kill.call is None else Disk(folder, kill.call, after=kill.after, cut=kill.power_cut)
    if kill.state is not None:
        _wrap_state(kill, disk)
    if disk is not None:
        disk.install()
        disk.armed = kill.state is None
    machine.recover(deployment)
    machine.run(deployment)


def _wrap_state(kill: Kill, disk: Disk | None) -> None:
    """Arm the disk in one state only, with the writes that enter and end it; or die at its entry or exit."""
    state = kill.state
    assert state is not None
    work = machine.STATES[state]
    enter = Deployment.enter

    def wrapped(deployment: Deployment) -> Any:
        if kill.at == "entry":
            die()
        try:
            step = work(deployment)
        except StepFailedError:
            if kill.at == "exit":
                die()
            raise
        if kill.at == "exit" and step is not None:
            die()
        return step

    def entering(deployment: Deployment, step: Any) -> None:
        if disk is not None:
            disk.armed = step.state is state or deployment.record.state is state
        enter(deployment, step)
        if disk is not None:
            disk.armed = step.state is state

    machine.STATES[state] = wrapped
    deployments.Deployment.enter = entering  # type: ignore[method-assign]


def states_told(home: Home, release: int | None = None) -> list[str]:
    """Give the states that the device has told of, in order."""
    return [
        str(event.state)
        for event in Outbox(home.outbox).recent()
        if release is None or event.release == release
    ]


def running(home: Home) -> int | None:
    return InstalledModel(home.path, MODEL).running()
