"""Workers put up and taken down; an interrupted installation leaves nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeml.errors import WorkerError
from edgeml_converters.workers.catalogue import (
    environment_python,
    folder,
    pins,
    status,
    worker_named,
    workers_dir,
)

Progress = Callable[[str], None]


def install(name: str, *, python: Path | None = None, progress: Progress = lambda _: None) -> Path:
    """Install a worker with the user's own pip configuration; gives its environment.

    The environment is built in its final folder's neighbour and renamed when everything is in it.
    Nothing is done if it is installed already with these pins.

    Args:
        name: the worker.
        python: the interpreter to build the environment with; the running one by default.
        progress: called with one line per package.

    Raises:
        UsageError: there is no worker of that name.
        WorkerError: pip failed; holds its last lines.
    """
    worker = worker_named(name)
    target = workers_dir() / name
    if (target / "pins.txt").is_file() and status(name).state == "installed":
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=target.parent))
        try:
            progress("creating the environment")
            # -P: a pip.py or venv.py in the folder that the user stands in is not run
            _run([str(python or sys.executable), "-P", "-m", "venv", str(scratch)], name, progress)
            progress("installing the packages")
            _run(
                [
                    *(str(environment_python(scratch)), "-P", "-m", "pip", "install", "--no-input"),
                    *("--progress-bar=off", *worker.options, "-r", str(folder(name) / "requirements.txt")),
                ],
                name,
                progress,
            )
            (scratch / "pins.txt").write_text(pins(name), encoding="utf-8")
            _put_in_place(scratch, target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return target


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep out another installation of the same worker, and clear what a killed one left."""
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkerError(
                f"worker {target.name} is being installed by another process; wait for it to end"
            ) from error
        for left in target.parent.glob(f".{target.name}.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        yield


def remove(name: str) -> bool:
    """Remove an installed worker; gives whether there was one.

    Raises:
        UsageError: there is no worker of that name.
        WorkerError: its folder cannot be removed.
    """
    worker_named(name)
    target = workers_dir() / name
    if not target.exists():
        return False
    grave = Path(tempfile.mkdtemp(prefix=f".{name}.old.", dir=target.parent))
    try:
        target.rename(grave / name)
        shutil.rmtree(grave)
    except OSError as error:
        raise WorkerError(f"worker {name} cannot be removed from {target}: {error}") from error
    return True


def size_bytes(name: str) -> int:
    """Give the bytes that an installed worker takes on the disk; 0 if it is not installed."""
    target = workers_dir() / name
    return sum(item.lstat().st_size for item in target.rglob("*") if not item.is_dir())


def _put_in_place(scratch: Path, target: Path) -> None:
    if target.exists():
        grave = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        target.rename(grave / target.name)
        shutil.rmtree(grave, ignore_errors=True)
    scratch.rename(target)


def _run(argv: list[str], name: str, progress: Progress) -> None:
    """Run a command, line by line; its group is ended with us."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    lines: list[str] = []
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                if line.startswith(("Collecting ", "Installing ", "Processing ")):
                    progress(line.strip()[:100])
            code = process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if code != 0:
        tail = "\n".join(f"  {line}" for line in lines[-10:])
        command = " ".join(argv[1:4])
        raise WorkerError(
            f"worker {name} could not be installed: {command} ended with exit code {code}.\n{tail}"
        )
