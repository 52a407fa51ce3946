"""The health policy, and what a process says of a release."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgeml import health
from edgeml.errors import BundleError, MessageError
from edgeml.health import HealthBeat, HealthPolicy, beat_from_bytes, beat_to_bytes, health_policy
from edgeml.histogram import HIGHEST, LOWEST
from edgeml.manifest import Manifest

BEAT = HealthBeat("kws", 3, "litert-float32", 17, "ab12", 5, calls=4, errors=1, latency_counts={"-3": 3})


def policy(**values: object) -> HealthPolicy:
    return health_policy(Manifest("kws", 1, (), (), (), (), health=values))


def test_a_manifest_that_says_nothing_has_the_defaults() -> None:
    assert policy() == HealthPolicy()
    assert policy().heartbeat == "if-seen"


def test_a_manifest_sets_limits_and_may_say_more_than_this_version_knows() -> None:
    found = policy(probation_s=5, max_latency_p95_ms=12.5, heartbeat="required", of_tomorrow=[1])
    assert found == HealthPolicy(probation_s=5.0, max_latency_p95_ms=12.5, heartbeat="required")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"probation_s": "long"}, "probation_s: must be a number"),
        ({"probation_s": -1}, "probation_s: must be 0 or more"),
        ({"probation_s": "nan"}, "probation_s: must be 0 or more"),
        ({"selftest_timeout_s": "inf"}, "selftest_timeout_s: must be 0 or more"),
        ({"max_error_rate": 5}, "max_error_rate: must be from 0 to 1"),
        ({"heartbeat": "maybe"}, "heartbeat: must be one of required, if-seen, none"),
        ({"min_calls": 1.5}, "min_calls: must be a whole number"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_its_key(values: dict[str, object], said: str) -> None:
    with pytest.raises(BundleError, match=f"kws: health: {said}"):
        policy(**values)


def test_a_beat_comes_back_as_it_was_sent() -> None:
    for beat in (BEAT, replace(BEAT, state="load_failed", detail="no engine"), replace(BEAT, defer_s=30.0)):
        assert beat_from_bytes(beat_to_bytes(beat)) == beat


def test_the_largest_beat_fits_what_is_read() -> None:
    counts = {str(place): 2**31 for place in range(LOWEST, HIGHEST + 1)}
    beat = replace(BEAT, model="m" * 128, calls=2**40, latency_counts=counts, detail="é" * 100_000)
    assert beat_from_bytes(beat_to_bytes(beat)).latency_counts == counts


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"model": "kws"}',
        b" " * 100_000,
        json.dumps({**json.loads(beat_to_bytes(BEAT)), "errors": 5}).encode(),
        json.dumps({**json.loads(beat_to_bytes(BEAT)), "latency_counts": {"-3": 5}}).encode(),
        json.dumps({**json.loads(beat_to_bytes(BEAT)), "latency_counts": {"x": 1}}).encode(),
        json.dumps({**json.loads(beat_to_bytes(BEAT)), "release": -1}).encode(),
        json.dumps({**json.loads(beat_to_bytes(BEAT)), "defer_s": "inf"}).encode(),
        json.dumps({**json.loads(beat_to_bytes(BEAT)), "state": "fine"}).encode(),
    ],
)
def test_a_datagram_that_is_no_beat_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        beat_from_bytes(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "m" * 129},
        {"model": "../m"},
        {"variant": "v" * 129},
        {"release": 2**53},
        {"calls": 2**41},
    ],
)
def test_a_beat_that_no_report_could_carry_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        beat_from_bytes(beat_to_bytes(replace(BEAT, **wrong)))  # type: ignore[arg-type]


def test_a_path_that_is_no_utf8_does_not_travel_as_it_is() -> None:
    beat = beat_from_bytes(beat_to_bytes(replace(BEAT, detail="no file caf\udce9")))

    assert beat.detail == "no file caf?"


def test_a_beat_of_a_later_version_is_read() -> None:
    assert beat_from_bytes(beat_to_bytes(BEAT).replace(b"{", b'{"new": 1,', 1)) == BEAT


# --- the socket


def test_without_an_agent_nothing_happens(tmp_path: Path) -> None:
    assert health.send(tmp_path, b"x") is False
    assert health.send(tmp_path / "missing", b"x") is False


@pytest.mark.parametrize("folder", ["home", "h" * 150])
def test_an_agent_hears_whatever_the_length_of_its_path(tmp_path: Path, folder: str) -> None:
    home = tmp_path / folder
    home.mkdir()
    with health.listen(home) as receiver:
        assert health.send(home, b"one")
        assert receiver.recv(100) == b"one"


def test_an_agent_takes_the_place_of_one_that_was_killed(tmp_path: Path) -> None:
    health.listen(tmp_path).close()  # a killed process leaves the file
    assert (tmp_path / health.SOCKET).exists()
    assert health.send(tmp_path, b"x") is False
    with health.listen(tmp_path) as receiver:
        assert health.send(tmp_path, b"x")
        assert receiver.recv(100) == b"x"
        assert (tmp_path / health.SOCKET).stat().st_mode & 0o777 == 0o666


def test_sending_does_not_wait_for_an_agent_that_does_not_read(tmp_path: Path) -> None:
    with health.listen(tmp_path) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        begun = time.monotonic()
        taken = [health.send(tmp_path, b"x" * 1000) for _ in range(5000)]
        assert taken[0]
        assert not taken[-1]
        assert time.monotonic() - begun < 60
