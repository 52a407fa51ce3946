"""What can be wrong with a device during an agentless install, and with what is sent to it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from edgeml_devices.install.deployment import Deployment
from edgeml_devices.install.device import open_device
from edgeml_devices.install.owner import new_owner
from edgeml_devices.install.payload import Payload
from edgeml_devices.install.words import Outcome, Plan
from edgeml_devices.transports.local import LocalTransport

from edgeml.cli import main
from edgeml.errors import TransportError
from edgeml.transport import CommandResult
from tests.conftest import require
from tests.faults.install_script import SCRIPT
from tests.integration.install.releases import NAME, bytes_bundle, is_whole

Deploy = Callable[..., tuple[int, dict[str, Any]]]
NEEDED = "chmod cp dd df dirname grep id ln ls mkdir mv readlink rm sed sh sleep sync tr uname".split()
"""What a small board's PATH has, sha256sum and flock aside."""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def bundles(tmp_path: Path) -> dict[int, Path]:
    return {number: bytes_bundle(tmp_path / "bundles", number) for number in (1, 2, 3)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def _deploy(home: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    words = ["deploy", *map(str, arguments), "--to", "local:", "--home", str(home), "--json"]
    if not {"--self-test", "--rollback"} & set(words):
        words.append("--skip-self-test")
    result = CliRunner().invoke(main, words)
    said = json.loads(result.stdout)
    return result.exit_code, said["devices"][0] if "devices" in said else said


# --- the disk


@contextmanager
def _file_system(place: Path, size: str) -> Iterator[Path]:
    require(os.geteuid() == 0, "mounting a small file system takes root")
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=False)
    require(done.returncode == 0, "a tmpfs cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_release_that_does_not_fit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    large = bytes_bundle(tmp_path / "large", 2, size_bytes=3_000_000)
    with _file_system(tmp_path / "small disk", "3m") as home:
        _deploy(home, bytes_bundle(tmp_path, 1))
        code, said = _deploy(home, large)
        assert (code, said["result"], said["reason"]) == (1, "FAILED_NO_STATE_CHANGE", "disk_full")
        assert said["sent_bytes"] == 0
        assert "4.1 MB are needed" in said["detail"]
        assert (is_whole(home), said["running"]) == (1, 1)


def test_a_disk_that_fills_up_before_the_switch_changes_nothing(
    tmp_path: Path, bundles: dict[int, Path]
) -> None:
    with _file_system(tmp_path / "small", "3m") as home:
        _deploy(home, bundles[1])
        fill = f"dd if=/dev/zero of={home}/fill bs=4096 2>/dev/null; true"
        code, said = _deploy(home, bundles[2], "--self-test", fill)
        assert (code, said["result"], said["reason"]) == (1, "FAILED_NO_STATE_CHANGE", "disk_full")
        assert is_whole(home) == 1
        (home / "fill").unlink()
        assert _deploy(home, bundles[2])[0] == 0
        assert is_whole(home) == 2


def test_a_disk_that_fills_up_after_the_switch_does_not_hinder_the_rollback(
    tmp_path: Path, bundles: dict[int, Path]
) -> None:
    with _file_system(tmp_path / "small", "3m") as home:
        _deploy(home, bundles[1])
        fail_once = f"[ -e {home}/fill ] || {{ dd if=/dev/zero of={home}/fill bs=4096 2>/dev/null; exit 1; }}"
        code, said = _deploy(home, bundles[2], "--restart", fail_once)
        assert (code, said["result"], said["reason"]) == (1, "FAILED_ROLLBACK_COMPLETE", "restart_failed")
        assert is_whole(home) == said["running"] == 1


def test_a_read_only_home_is_named_as_such(tmp_path: Path, bundles: dict[int, Path]) -> None:
    with _file_system(tmp_path / "small", "3m") as home:
        _deploy(home, bundles[1])
        subprocess.run(["mount", "-o", "remount,ro", home], check=True)
        code, said = _deploy(home, bundles[2])
        assert (code, said["result"], said["reason"]) == (1, "FAILED_NO_STATE_CHANGE", "read_only")
        assert is_whole(home) == 1
        code, said = _deploy(home / "below", bundles[2])
        assert (code, said["reason"]) == (1, "read_only")


# --- what is sent, and what is there


def test_a_tampered_bundle_is_refused_before_the_device_is_touched(
    home: Path, bundles: dict[int, Path]
) -> None:
    with zipfile.ZipFile(bundles[1]) as archive:
        info = archive.getinfo("labels.txt")
        name_and_extra = 30 + len(info.filename)
    text = bytearray(bundles[1].read_bytes())
    text[info.header_offset + name_and_extra] ^= 1
    bundles[1].write_bytes(text)
    code, said = _deploy(home, bundles[1])
    assert code == 1
    assert "labels.txt is damaged" in said["error"]["message"]
    assert not home.exists()


def _flip(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_blob_is_sent_again_and_the_release_it_is_part_of_is_mended(
    home: Path, bundles: dict[int, Path]
) -> None:
    _deploy(home, bundles[1])
    release = home / "models" / NAME / "releases" / "1"
    # a hard link: the blob and the running release are damaged together
    _flip(release / "labels.txt")
    code, said = _deploy(home, bundles[1])
    assert (code, said["result"]) == (0, "SUCCESSFUL")
    assert said["sent_bytes"] == (release / "labels.txt").stat().st_size
    assert is_whole(home) == 1


def test_a_damaged_blob_does_not_get_into_another_release(home: Path, bundles: dict[int, Path]) -> None:
    _deploy(home, bundles[1])
    _flip(home / "models" / NAME / "releases" / "1" / "labels.txt")
    code, _ = _deploy(home, bundles[2])
    assert (code, is_whole(home)) == (0, 2)


def test_a_damaged_previous_release_is_not_gone_back_to(home: Path, bundles: dict[int, Path]) -> None:
    _deploy(home, bundles[1])
    _deploy(home, bundles[2])
    _flip(home / "models" / NAME / "releases" / "1" / "variants" / "litert-float32" / "model file.tflite")
    code, said = _deploy(home, "--rollback", NAME, "--self-test", "true")
    assert (code, said["result"], said["reason"]) == (1, "FAILED_NO_STATE_CHANGE", "hash")
    assert "model file.tflite of release 1" in said["detail"]
    assert is_whole(home) == 2


def test_a_release_with_the_number_of_the_running_one_and_other_files_is_refused(
    home: Path, bundles: dict[int, Path], tmp_path: Path
) -> None:
    _deploy(home, bundles[1])
    code, said = _deploy(home, bytes_bundle(tmp_path / "other", 1, size_bytes=2001))
    assert (code, said["reason"]) == (1, "manifest")
    assert "needs a higher number" in said["detail"]
    assert is_whole(home) == 1


def test_a_state_that_cannot_be_read_leads_to_what_was_committed(
    home: Path, bundles: dict[int, Path]
) -> None:
    _deploy(home, bundles[1])
    _deploy(home, bundles[2])
    file = home / "models" / NAME / "deploy.state"
    for text in ("", "state=PROBATION\nrelease=7", "\0" * 100, "state=COMMITTED\nrelease=x\nend=1\n"):
        file.write_text(text)
        subprocess.run(["dash", SCRIPT, home, "test", "60", "recover"], check=True, capture_output=True)
        assert "reason=unreadable_state" in file.read_text()
        assert is_whole(home) == 2
    _flip(home / "models" / NAME / "current" / "manifest.json")
    file.write_text("")
    subprocess.run(["dash", SCRIPT, home, "test", "60", "recover"], check=True, capture_output=True)
    assert is_whole(home) == 1


# --- the device's tools


def _path_of(folder: Path, tools: Sequence[str]) -> str:
    folder.mkdir()
    for tool in tools:
        found = shutil.which(tool)
        require(found, f"{tool} is not installed")
        (folder / tool).symlink_to(str(found))
    return str(folder)


@pytest.mark.parametrize("hasher", ["busybox", "openssl"])
def test_a_device_without_sha256sum_and_flock_uses_what_it_has(
    home: Path, bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hasher: str
) -> None:
    monkeypatch.setenv("PATH", _path_of(tmp_path / "bin", [*NEEDED, hasher]))
    assert _deploy(home, bundles[1])[0] == 0
    assert _deploy(home, bundles[2])[0] == 0
    assert is_whole(home) == 2
    assert not [path for path in (home / "install").iterdir() if path.name.startswith("busy")]


def test_a_device_of_busybox_alone_will_do(
    home: Path, bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(_path_of(tmp_path / "bin", ["busybox"]))
    (path / "sh").write_text('#!/bin/busybox sh\nexec busybox sh "$@"\n')
    (path / "sh").chmod(0o755)
    monkeypatch.setenv("PATH", str(path))
    for number in (1, 2):
        code, said = _deploy(home, bundles[number])
        assert (code, said["detail"]) == (0, "")
    assert is_whole(home) == 2


def test_a_device_that_cannot_hash_is_refused(
    home: Path, bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", _path_of(tmp_path / "bin", NEEDED))
    code, said = _deploy(home, bundles[1])
    assert (code, said["result"]) == (1, "FAILED_NO_STATE_CHANGE")
    assert said["detail"] == "needs sha256sum, busybox or openssl"


def test_calls_on_a_device_without_flock_wait_for_each_other(home: Path, tmp_path: Path) -> None:
    environment = {"PATH": _path_of(tmp_path / "bin", [*NEEDED, "sha256sum"]), "HOME": str(tmp_path)}

    def argv(owner: str, *verb: str) -> list[str]:
        return ["/bin/sh", str(SCRIPT), str(home), owner, "60", *verb]

    subprocess.run(argv("a", "lock", "a", "", ""), env=environment, check=True)
    # one that was killed has left its lock, in this boot and before it
    for left in ("999999 x", f"999999 {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"):
        (home / "install" / "busy.lock").write_text(f"{left}\n")
        subprocess.run(argv("a", "lease"), env=environment, check=True, timeout=120)
    waiting = [
        subprocess.Popen(argv("a", "begin", NAME, str(number)), env=environment, stdout=subprocess.PIPE)
        for number in range(1, 6)
    ]
    for process in waiting:
        text, _ = process.communicate(timeout=120)
        assert b"ok:" in text
    assert not list((home / "install").glob("busy*"))


# --- others on the device


def test_an_enrolled_device_is_left_to_its_agent(home: Path, bundles: dict[int, Path]) -> None:
    home.mkdir()
    (home / "identity.json").write_text("{}")
    code, said = _deploy(home, bundles[1])
    assert (code, said["result"], said["reason"]) == (1, "FAILED_NO_STATE_CHANGE", "busy")
    assert "an agent is enrolled" in said["detail"]
    code, said = _deploy(home, bundles[1], "--force")
    assert (code, is_whole(home)) == (0, 1)


def test_a_running_agent_keeps_its_home(home: Path, bundles: dict[int, Path]) -> None:
    home.mkdir()
    with (home / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, said = _deploy(home, bundles[1])
        assert (code, said["reason"]) == (1, "busy")
        assert "an agent runs" in said["detail"]
    assert _deploy(home, bundles[1])[0] == 0


def test_two_deploys_at_once_do_not_get_into_each_others_way(home: Path, bundles: dict[int, Path]) -> None:
    begun, go_on = threading.Event(), threading.Event()
    outcomes: list[Outcome] = []

    class Slow(LocalTransport):
        def put(self, local: Path, remote: str) -> None:
            if remote.endswith(".part"):
                begun.set()
                assert go_on.wait(60)
            super().put(local, remote)

    def first() -> None:
        outcomes.append(_install(Slow(), home, bundles[1]))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(60)
    code, said = _deploy(home, bundles[2])
    assert (code, said["reason"]) == (1, "busy")
    assert "deploys here" in said["detail"]
    code, _ = _deploy(home, bundles[2], "--force")
    assert (code, is_whole(home)) == (0, 2)
    go_on.set()
    thread.join()
    assert (outcomes[0].result, outcomes[0].reason) == ("FAILED_NO_STATE_CHANGE", "busy")
    assert is_whole(home) == 2


def test_the_lease_of_another_boot_is_over(home: Path, bundles: dict[int, Path]) -> None:
    _deploy(home, bundles[1])
    lease = "owner=other\nwho=somebody\nboot={}\nuntil=999999999\nforced=\n"
    (home / "install" / "lease").write_text(lease.format("another boot"))
    assert _deploy(home, bundles[2])[0] == 0
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (home / "install" / "lease").write_text(lease.format(boot))
    code, said = _deploy(home, bundles[3])
    assert (code, said["reason"]) == (1, "busy")
    assert "somebody deploys here; try again when it has ended" in said["detail"]


# --- the way to the device


class CutTransport(LocalTransport):
    """The way breaks at the nth use, for good or for once; what was asked may or may not have been done."""

    def __init__(self, cut_at: int, *, done: bool, for_good: bool) -> None:
        super().__init__()
        self.uses = 0
        self._cut_at = cut_at
        self._done = done
        self._for_good = for_good

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        return self._cut(lambda: super(CutTransport, self).run(argv, timeout_s))

    def put(self, local: Path, remote: str) -> None:
        self._cut(lambda: super(CutTransport, self).put(local, remote))

    def _cut(self, do: Callable[[], Any]) -> Any:
        self.uses += 1
        is_cut = self.uses == self._cut_at or (self._for_good and self.uses > self._cut_at)
        if not is_cut:
            return do()
        if self._done and self.uses == self._cut_at:
            do()
        raise TransportError("the line was cut")


def _install(transport: LocalTransport, home: Path, bundle: Path, plan: Plan | None = None) -> Outcome:
    with Payload(bundle) as payload, transport:
        device = open_device(transport, str(home), new_owner())
        plan = plan or Plan(skip_self_test=True, restart="true", check="true", probation_s=0.0)
        return Deployment("cut:", device, plan, lambda _: None, threading.Event()).install(payload)


@pytest.mark.parametrize(
    ("for_good", "done", "every"),
    [
        pytest.param(False, False, 1, id="once-not done"),
        pytest.param(False, True, 1, id="once-done"),
        pytest.param(True, False, 1, id="for good-not done"),
        # leaves on the device what a cut before the next use leaves
        pytest.param(True, True, 3, id="for good-done"),
        pytest.param(True, True, 1, id="for good-done-each", marks=pytest.mark.soak),
    ],
)
def test_the_line_may_be_cut_at_each_use(
    home: Path,
    bundles: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    for_good: bool,
    done: bool,
    every: int,
) -> None:
    monkeypatch.setattr("edgeml_devices.install.gates.START_S", 0.5)
    monkeypatch.setattr("edgeml_devices.install.gates.CHECK_EVERY_S", 0.1)
    _deploy(home, bundles[1])
    kept = tmp_path / "kept"
    subprocess.run(["cp", "-a", home, kept], check=True)
    whole = CutTransport(0, done=False, for_good=False)
    assert _install(whole, home, bundles[2]).result == "SUCCESSFUL"
    ends = set()
    for cut_at in range(whole.uses, 2, -every):  # the first two find the home; nothing is begun before them
        shutil.rmtree(home)
        subprocess.run(["cp", "-a", kept, home], check=True)
        outcome = _install(CutTransport(cut_at, done=done, for_good=for_good), home, bundles[2])
        ends.add(outcome.result)
        runs = is_whole(home)
        where = f"use {cut_at}: {outcome}"
        if outcome.result == "SUCCESSFUL":
            assert runs == 2, where
        elif outcome.result != "FAILED_UNABLE_TO_ROLLBACK":
            assert runs == 1, where
            assert outcome.reason in {"network", "health_check", "restart_failed"}, where
        assert runs in {1, 2}, where
        # this very process holds the lease still
        again = _install(LocalTransport(), home, bundles[2], Plan(skip_self_test=True, force=True))
        assert again.result == "SUCCESSFUL", where
        assert is_whole(home) == 2, where
    assert "FAILED_NO_STATE_CHANGE" in ends
    assert ("FAILED_UNABLE_TO_ROLLBACK" in ends) == for_good
    assert ("FAILED_ROLLBACK_COMPLETE" in ends) != for_good
