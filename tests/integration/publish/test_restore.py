"""A server that was restored from a back-up, and the machine that had published after it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.publish.workshop import Workshop
from tests.integration.server_process import ServerProcess


def edgeml(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "edgeml", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def go_back(process: ServerProcess, backup: Path) -> None:
    port = int(process.url.rpartition(":")[2])
    process.stop()
    shutil.rmtree(process.data)
    edgeml("server", "restore", backup, "--data", process.data)
    process.start(port=port)


@pytest.fixture(scope="module")
def once_restored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Release 1 was backed up; release 2 was published and seen, then the back-up was restored.

    Gives the folder of server and workshop, the server's address and its admin's token; it has ended.
    """
    folder = tmp_path_factory.mktemp("restored")
    with ServerProcess(folder / "server") as process:
        own = Workshop(folder / "workshop", process.url, process.admin_token)
        own.do("repo", "init")
        own.do("publish", own.bundle(1))
        own.do("audit", "verify")
        edgeml("server", "backup", folder / "backup.tar", "--data", process.data)
        own.do("publish", own.bundle(2, weights=b"others"))
        own.do("audit", "verify")
        own.do("repo", "status")
        go_back(process, folder / "backup.tar")
    return folder, process.url, process.admin_token


@pytest.fixture
def restored(once_restored: tuple[Path, str, str], tmp_path: Path) -> Iterator[Workshop]:
    """Copies of that server, which runs again, and of that workshop."""
    folder, url, token = once_restored
    for name in ("server", "workshop"):
        shutil.copytree(folder / name, tmp_path / "copies" / name)
    process = ServerProcess(tmp_path / "copies" / "server", admin_token=token)
    process.start(port=int(url.rpartition(":")[2]))
    try:
        yield Workshop(tmp_path / "copies" / "workshop", url, token)
    finally:
        process.stop()


def test_the_machine_that_published_last_is_told_the_way_on(restored: Workshop) -> None:
    said = restored.refused("repo", "status")
    assert "restored from a back-up" in said
    assert "edgeml repo restore" in said


def test_without_the_bundle_it_is_named(restored: Workshop) -> None:
    said = restored.refused("repo", "restore")
    assert "kws/2" in said
    assert "edgeml repo restore kws-2.edgeml" in said


def test_what_was_signed_after_the_backup_comes_back_without_a_key(restored: Workshop) -> None:
    for key in restored.keys.glob("*.pem"):
        key.unlink()
    done = restored.ask("repo", "restore", restored.bundle(2, weights=b"others"))
    assert [(one["role"], one["version"] - one["before"]) for one in done["roles"]] == [("main", 1)]
    assert done["releases"] == ["kws/2"]
    assert restored.listed() == [2, 1]
    manifest = restored.manifest_on_device(2)
    assert manifest is not None
    assert manifest["release"] == 2


def test_afterwards_publishing_goes_on(restored: Workshop) -> None:
    restored.do("repo", "restore", restored.bundle(2, weights=b"others"))
    restored.do("publish", restored.bundle(3))
    assert restored.listed() == [3, 2, 1]
    assert "lacks nothing" in restored.do("repo", "restore")


def test_another_bundle_of_the_number_is_refused(restored: Workshop) -> None:
    said = restored.run("repo", "restore", restored.bundle(2, weights=b"forged")).stderr
    assert "no such release" in said
    with pytest.raises(AssertionError):
        restored.do("repo", "status")


def test_a_newer_root_comes_back_too(own: Workshop, process: ServerProcess, tmp_path: Path) -> None:
    edgeml("server", "backup", tmp_path / "backup.tar", "--data", process.data)
    own.do("keys", "rotate", "main")
    own.do("repo", "renew", "root")
    own.do("repo", "status")
    go_back(process, tmp_path / "backup.tar")
    roles = {one["role"] for one in own.ask("repo", "restore")["roles"]}
    assert {"root", "targets"} <= roles
    own.do("publish", own.bundle(1))


def test_the_audit_log_is_believed_again_only_when_a_person_says_so(restored: Workshop) -> None:
    restored.do("repo", "restore", restored.bundle(2, weights=b"others"))
    assert "--after-restore" in restored.refused("audit", "verify")
    assert "all as they were written" in restored.do("audit", "verify", "--after-restore")
    restored.do("audit", "verify")
