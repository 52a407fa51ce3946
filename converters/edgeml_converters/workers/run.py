"""One job in a worker: a JSON request, a process group of its own, a JSON result, a log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from edgeml.errors import ConversionError, EdgemlError, UnsafeFileError, WorkerError, WorkerTimeoutError
from edgeml.processes import leash
from edgeml.settings import settings
from edgeml_converters.workers.catalogue import folder, interpreter

RUNNER: Final = Path(__file__).with_name("job.py")
LOG_TAIL_LINES: Final = 15
LOGS_KEPT: Final = 50
POLL_S: Final = 0.02
KILL_GRACE_S: Final = 5.0
_REFUSALS: Final[dict[str, type[EdgemlError]]] = {
    "RefusedError": ConversionError,
    "UnsafeError": UnsafeFileError,
}

# what would let a worker import from, or download to, somewhere else than its own environment
_HIDDEN: Final = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")


def run_job(worker: str, job: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    """Let a worker do one job and give its result, a JSON object.

    Whatever ends the wait (an error, Ctrl-C, the timeout, this process' own death on Linux) also ends
    the worker and every process that it started.

    Raises:
        WorkerMissingError: the worker is not installed.
        WorkerTimeoutError: it did not finish within ``timeout_s``.
        ConversionError: the worker refused the model as it is, and says why.
        UnsafeFileError: the worker found code in the file.
        WorkerError: it failed, died, or left no readable result; holds the end of its log.
    """
    python = interpreter(worker)
    log = _new_log(worker)
    with tempfile.TemporaryDirectory(prefix=f"edgeml-{worker}-") as scratch:
        request, result = Path(scratch, "request.json"), Path(scratch, "result.json")
        request.write_text(json.dumps(dict(job)), encoding="utf-8")
        script = folder(worker) / "worker.py"
        # -P: nothing beside the scripts can be imported by accident
        argv = [str(python), "-u", "-P", str(RUNNER), str(script), str(request), str(result)]
        code = _run(worker, argv, log, Path(scratch), timeout_s)
        return _read_result(worker, code, result, log)


def _run(worker: str, argv: list[str], log: Path, scratch: Path, timeout_s: float) -> int:
    environment = {key: value for key, value in os.environ.items() if key not in _HIDDEN}
    environment |= {"TMPDIR": str(scratch), "PYTHONNOUSERSITE": "1", "HF_HUB_OFFLINE": "1"}
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=scratch,
                env=environment,
                start_new_session=True,
                preexec_fn=leash(signal.SIGKILL),  # noqa: PLW1509 - prctl has no other moment
            )
        except OSError as error:
            raise WorkerError(f"worker {worker} could not be started with {argv[0]}: {error}") from error
        try:
            return _wait(process, timeout_s)
        except subprocess.TimeoutExpired as error:
            _kill(process)
            raise WorkerTimeoutError(
                f"worker {worker} did not finish within {timeout_s:g} s and was stopped.{_tail(log)}"
            ) from error
        finally:
            _kill(process)


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    # short sleeps instead of wait(): the group is left whole when a signal comes in between
    deadline = time.monotonic() + timeout_s
    while (code := process.poll()) is None:
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(process.args, timeout_s)
        time.sleep(POLL_S)
    return code


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: the worker may be gone while what it started is not."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(KILL_GRACE_S)


def _read_result(worker: str, code: int, result: Path, log: Path) -> dict[str, Any]:
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        hint = "; the machine may be out of memory" if code == -signal.SIGKILL else ""
        raise WorkerError(f"worker {worker} {end} and left no result{hint}.{_tail(log)}") from None
    except ValueError as error:
        raise WorkerError(f"worker {worker} wrote a result that is not JSON: {error}.{_tail(log)}") from error
    if not isinstance(found, dict) or not isinstance(found.get("ok"), bool):
        raise WorkerError(f"worker {worker} wrote a result without 'ok'.{_tail(log)}")
    if not found["ok"]:
        # what a worker refuses on purpose is the model's matter, and its log says nothing about it
        refusal = _REFUSALS.get(str(found.get("kind")))
        if refusal is not None:
            raise refusal(str(found.get("error")))
        raise WorkerError(f"worker {worker}: {found.get('error', 'failed without a reason')}.{_tail(log)}")
    return found


def _new_log(worker: str) -> Path:
    directory = settings().cache_dir / "logs"
    directory.mkdir(parents=True, exist_ok=True)
    for old in sorted(directory.glob("*.log"), key=lambda item: item.stat().st_mtime)[:-LOGS_KEPT]:
        old.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f"{worker}-{time.strftime('%Y%m%d-%H%M%S')}-", suffix=".log", dir=directory
    )
    os.close(handle)
    return Path(name)


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if not lines:
        return f"\nIts log is empty: {log}"
    return "\n".join([f"\nThe end of its log ({log}):", *(f"  {line}" for line in lines[-LOG_TAIL_LINES:])])
