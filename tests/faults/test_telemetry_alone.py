"""Processes without an agent: one of them keeps and sends for all, and when it is killed another does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import UsageError
from edgeml.telemetry import recorder, start
from edgeml.telemetry.folder import ring_folder
from edgeml.telemetry.report import MOST_MODELS
from edgeml.telemetry.settings import FOLDER
from tests.faults.tiny_collector import TOKEN, Collector, CollectorServer
from tests.unit.devices.operator.forward_proxy import ForwardProxy
from tests.waiting import eventually

APPLICATION = """
import sys, time
from edgeml import telemetry
url, token_file, home = sys.argv[1:]
with telemetry.start(url, token_file, home=home, window_s=1), telemetry.recorder("kws", release=1) as one:
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            one.record(0.01)
        print("recorded", flush=True)
"""


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def url(collector: Collector) -> Iterator[str]:
    with CollectorServer(collector) as server:
        yield server.url


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForwardProxy]:
    """What the environment names; to be asked for before the application."""
    with ForwardProxy() as proxy:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        yield proxy


@pytest.fixture
def application(url: str, token_file: Path, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Start an application that records as many inferences as it is told to."""
    started: list[Any] = []
    environment = {name: text for name, text in os.environ.items() if name != FOLDER}

    def begin() -> Any:
        process = subprocess.Popen(
            [sys.executable, "-c", APPLICATION, url, str(token_file), str(tmp_path / "home")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "EDGEML_HOME": str(tmp_path / "another home")},
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()
    shutil.rmtree(ring_folder(tmp_path / "another home"), ignore_errors=True)


def record(process: Any, count: int) -> None:
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "recorded\n"


def test_behind_a_proxy_telemetry_goes_through_it(
    proxy: ForwardProxy, application: Callable[[], Any], collector: Collector, url: str
) -> None:
    record(application(), 7)
    eventually(lambda: collector.calls() == 7)
    assert set(proxy.asked) == {f"POST {url}/v1/reports"}


def test_another_process_takes_over_when_the_owner_is_killed(
    application: Callable[[], Any], collector: Collector
) -> None:
    first, second = application(), application()
    record(first, 30)
    record(second, 12)
    eventually(lambda: collector.calls() == 42)
    record(first, 7)
    first.send_signal(signal.SIGKILL)
    record(second, 1)
    eventually(lambda: collector.calls() == 50)
    assert len(collector.streams) == 1


def test_what_was_recorded_last_is_kept_when_the_process_ends(
    application: Callable[[], Any], collector: Collector
) -> None:
    first = application()
    record(first, 9)
    first.communicate()
    assert first.returncode == 0
    application()
    eventually(lambda: collector.calls() == 9)


@pytest.mark.parametrize("content", [None, "", "two words", "é"])
def test_a_token_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="token"):
        start("https://fleet.example", path, home=tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_an_address_that_is_none_is_refused(tmp_path: Path, token_file: Path) -> None:
    with pytest.raises(UsageError, match="not a server's address"):
        start("fleet.example", token_file, home=tmp_path / "home")


def test_numbers_that_cannot_be_are_refused(tmp_path: Path, token_file: Path) -> None:
    with pytest.raises(UsageError, match="window_s"):
        start("https://fleet.example", token_file, home=tmp_path, window_s=0)
    with pytest.raises(UsageError, match="budget_bytes"):
        start("https://fleet.example", token_file, home=tmp_path, budget_bytes=1)


def test_an_enrolled_device_has_nothing_to_say(collector: Collector, url: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    identity = {"server": url, "token": TOKEN, "device_id": "1", "name": "cam", "schema": 1}
    (home / "identity.json").write_text(json.dumps(identity))
    program = (
        "import time\nfrom edgeml import telemetry\n"
        "with telemetry.start(window_s=1), telemetry.recorder('kws', release=1) as one:\n"
        "    one.record(0.01)\n    time.sleep(60)\n"
    )
    environment = {name: text for name, text in os.environ.items() if name != FOLDER}
    process = subprocess.Popen([sys.executable, "-c", program], env={**environment, "EDGEML_HOME": str(home)})
    try:
        eventually(lambda: collector.calls() == 1)
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(ring_folder(home), ignore_errors=True)


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        (None, "is not enrolled"),
        ('{"server": "https://f", "token": "t", "device_id": ""}', "is not enrolled"),
        ("{}", "cannot be read"),
        ("[", "cannot be read"),
    ],
)
def test_a_device_that_is_not_enrolled_is_told_how(
    tmp_path: Path, identity: str | None, message: str
) -> None:
    if identity is not None:
        (tmp_path / "identity.json").write_text(identity)
    with pytest.raises(UsageError, match=message):
        start(home=tmp_path)


def test_a_server_without_a_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both, or neither"):
        start("https://fleet.example", home=tmp_path)


def test_more_models_than_a_report_may_hold_do_not_have_it_refused(
    url: str, collector: Collector, token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "rings"))
    monkeypatch.setenv("EDGEML_HOME", str(tmp_path / "home"))
    several = [recorder(f"model-{number}", release=1) for number in range(MOST_MODELS + 5)]
    for number, one in enumerate(several):
        for _ in range(1 + (number % 2)):
            one.record(0.01)
    recorded = sum(1 + number % 2 for number in range(len(several)))
    with start(url, token_file, home=tmp_path / "home", window_s=1):
        eventually(lambda: collector.calls() > 0)
    lost = sum(report.lost.overwritten for _, report in collector.stored)
    assert collector.calls() == recorded - lost
    assert lost == 5
    for one in several:
        one.close()


def test_the_child_of_a_fork_ends_whatever_the_sending_thread_did_meanwhile(
    url: str, token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "rings"))
    with start(url, token_file, home=tmp_path / "home", window_s=1) as sending:
        with sending._ended._cond:  # as its thread has it for a moment, again and again
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(60)
                sending.stop()
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
