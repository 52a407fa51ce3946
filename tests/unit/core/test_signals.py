"""Ctrl-C and SIGTERM unwind the stack, but not that of an import."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml import signals
from edgeml.signals import TERMINATED, run_async, unwinding

INTERRUPTED = """
import os, signal, time
os.kill(os.getpid(), signal.{signal})
time.sleep({seconds})
whole = True
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], str]:
    """Make a module in whose import a signal comes, ``seconds`` before its end; gives its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(number: str, seconds: float) -> str:
        name = f"imported_at_{number.lower()}"
        (tmp_path / f"{name}.py").write_text(INTERRUPTED.format(signal=number, seconds=seconds))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return make


@pytest.mark.parametrize(("number", "raised"), [("SIGINT", KeyboardInterrupt), ("SIGTERM", SystemExit)])
def test_a_signal_waits_for_the_end_of_an_import(
    module: Callable[[str, float], str], number: str, raised: type[BaseException]
) -> None:
    name = module(number, 0.2)
    with pytest.raises(raised), unwinding():
        _ = importlib.import_module(name), time.sleep(60)
    assert sys.modules[name].whole  # type: ignore[attr-defined]


def test_an_import_that_does_not_end_is_left(
    module: Callable[[str, float], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_IMPORT_S", 0.2)
    name = module("SIGINT", 60)
    with unwinding() as ends:
        with pytest.raises(KeyboardInterrupt):
            importlib.import_module(name)
        assert ends.import_broken
    assert name not in sys.modules


class Dying:
    """A signal comes while Python lets it die, and ignores exceptions."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(0)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_whose_exception_python_ignores_comes_again(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    with pytest.raises(raised), unwinding():
        _ = Dying(number).number, time.sleep(60)


def test_other_exceptions_that_python_ignores_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __del__(self) -> None:
            raise ValueError("told")

    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: told.append(str(one.exc_value)))
    with unwinding():
        Failing()
    assert told == ["told"]


def test_an_interrupt_cancels_what_asyncio_runs() -> None:
    cancelled = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with unwinding():
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run_async(work())
        assert signal.getsignal(signal.SIGINT) is handler
    assert cancelled


def test_a_signal_is_for_the_program_that_it_came_to(module: Callable[[str, float], str]) -> None:
    with unwinding():
        importlib.import_module(module("SIGINT", 0))
    time.sleep(0.2)  # it would come in this time
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_has_its_own_exit_code() -> None:
    with pytest.raises(SystemExit) as left, unwinding():
        os.kill(os.getpid(), signal.SIGTERM)
    assert left.value.code == TERMINATED


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with unwinding():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_signals_to_the_main_one() -> None:
    seen = []

    def work() -> None:
        with unwinding():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
