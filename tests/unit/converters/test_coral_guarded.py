"""Engines run in a copy of the process: what kills the copy is an error in words."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.coral import guarded as guarding
from edgeml_converters.coral.guarded import guarded
from edgeml_converters.coral.parity import Runner

from edgeml.cli import main
from edgeml.errors import ConversionError, ParityError
from tests.integration import coral_models

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux copies processes safely")


@pytest.fixture(autouse=True)
def no_thread_of_another_test_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "_has_threads", lambda: False)


def crash(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)  # faulthandler is silent at it


def fail() -> None:
    raise ParityError("it differs")


def test_results_and_errors_come_back() -> None:
    assert np.array_equal(guarded("cut", lambda: np.arange(300_000)), np.arange(300_000))
    with pytest.raises(ParityError, match="it differs"):
        guarded("cut", fail)


def test_a_crash_is_an_error() -> None:
    with pytest.raises(ConversionError, match=r"^cut: the model cannot be run here: LiteRT crashed at it"):
        guarded("cut", crash)


def test_what_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "LIMIT_S", 1)
    with pytest.raises(ConversionError, match="did not end within 1 s"):
        guarded("cut", lambda: time.sleep(60))


def test_an_interrupt_ends_the_copy_too() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    others = children.read_text()
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with pytest.raises(KeyboardInterrupt):
        guarded("cut", lambda: time.sleep(60))
    signal.signal(signal.SIGALRM, before)
    assert children.read_text() == others


def test_a_process_with_threads_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "_has_threads", lambda: True)
    assert guarded("cut", os.getpid) == os.getpid()


@pytest.mark.parametrize(
    ("model", "command"),
    [("float_ports", "rewrite"), ("of_free_batch", "rewrite"), ("with_stopper", "cut")],
)
def test_a_model_that_crashes_the_engine_ends_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, command: str
) -> None:
    source = getattr(coral_models, model)(tmp_path / "model.tflite")
    monkeypatch.setattr(Runner, "run", crash)
    monkeypatch.setattr("edgeml_converters.coral.rewrites.shapes._engine", crash)
    target = tmp_path / "made"
    done = CliRunner().invoke(main, ["coral", command, str(source), "-o", str(target)])
    assert done.exit_code == 1
    assert "LiteRT crashed at it (signal 10)" in done.stderr
    assert not target.exists()
    assert CliRunner().invoke(main, ["coral", "check", str(source)]).exit_code == 0
