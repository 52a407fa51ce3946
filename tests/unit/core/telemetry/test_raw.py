"""Inputs themselves leave a process only where its owner says so, and never more than may."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeml.telemetry import Recorder, recorder
from edgeml.telemetry.raw import MOST_BYTES
from edgeml.telemetry.reading import RingReader
from edgeml.telemetry.report import Sample
from edgeml.telemetry.settings import TelemetrySettings


def begin(folder: Path, **changes: object) -> Recorder:
    own = TelemetrySettings(samples="raw", folder=str(folder), slots=1024)
    return recorder("m", settings=TelemetrySettings(**(as_dict(own) | changes)))  # type: ignore[arg-type]


def as_dict(own: TelemetrySettings) -> dict[str, object]:
    return {name: getattr(own, name) for name in TelemetrySettings.__slots__}


def kept(samples: tuple[Sample, ...]) -> dict[bytes, str]:
    return {sample.raw: sample.why for sample in samples if sample.raw is not None}


def test_by_default_no_input_is_even_asked_for(tmp_path: Path) -> None:
    asked: list[int] = []

    def give() -> bytes:
        asked.append(1)
        return b"secret"

    with begin(tmp_path, samples="metadata") as one:
        one.record(0.1, confidence=0.1, error="E", raw=give)
        one.record(0.1, raw=b"secret")
        (window,) = RingReader(tmp_path).read().models
    assert asked == []
    assert kept(window.samples) == {}
    assert not list(tmp_path.glob("*.raw"))
    assert all(b"secret" not in ring.read_bytes() for ring in tmp_path.iterdir())


def test_inputs_of_failures_of_the_least_sure_and_of_one_at_random_are_kept(tmp_path: Path) -> None:
    reader = RingReader(tmp_path)
    with begin(tmp_path) as one:
        one.record(0.1, confidence=0.9, raw=b"first")
        for number in range(300):
            one.record(0.1, confidence=0.95, raw=b"usual %d" % number)
        one.record(0.1, confidence=0.2, raw=lambda: b"unsure")
        one.record(0.1, error="E", raw=b"failed")
        (window,) = reader.read().models
        assert kept(window.samples) == {b"first": "unsure", b"unsure": "unsure", b"failed": "error"}
        assert len(list(tmp_path.glob("*.raw"))) == 3
        reader.kept()
        assert not list(tmp_path.glob("*.raw"))


def test_no_other_user_may_read_them(tmp_path: Path) -> None:
    with begin(tmp_path) as one:
        one.record(0.1, raw=b"face")
    (file,) = tmp_path.glob("*.raw")
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_budget_holds_until_the_reader_has_made_room(tmp_path: Path) -> None:
    reader = RingReader(tmp_path)
    with begin(tmp_path, raw_budget_bytes=2500) as one:
        for _ in range(10):
            one.record(0.1, error="E", raw=os.urandom(1000))
        one.record(0.1, error="E", raw=os.urandom(MOST_BYTES + 1))
        assert len(list(tmp_path.glob("*.raw"))) == 2
        (window,) = reader.read().models
        assert len(kept(window.samples)) == 2
        reader.kept()
        one.record(0.1, error="E", raw=b"again")
        (window,) = reader.read().models
    assert kept(window.samples) == {b"again": "error"}


def test_a_window_carries_only_so_many_bytes(tmp_path: Path) -> None:
    with begin(tmp_path) as one:
        for _ in range(5):
            one.record(0.1, error="E", raw=os.urandom(20_000))
        (window,) = RingReader(tmp_path).read().models
    assert len(kept(window.samples)) == 2


def test_inputs_whose_ring_is_gone_are_taken_away(tmp_path: Path) -> None:
    with begin(tmp_path) as one:
        one.record(0.1, raw=b"x")
    (ring,) = tmp_path.glob("*.ring")
    ring.unlink()
    RingReader(tmp_path).kept()
    assert list(tmp_path.iterdir()) == []


def test_an_input_that_cannot_be_given_ends_nothing(tmp_path: Path) -> None:
    with begin(tmp_path) as one:
        one.record(0.1, raw=lambda: 1 / 0)  # type: ignore[arg-type,return-value] # the mistake under test
        (window,) = RingReader(tmp_path).read().models
    assert (window.calls, kept(window.samples)) == (1, {})


@pytest.mark.parametrize("name", ["0123456789abcdef-1.raw", "0123456789abcdef-0.raw", "x.raw"])
def test_a_link_in_place_of_an_input_is_not_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "rings").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    with begin(tmp_path / "rings") as one:
        one.record(0.1, error="E")
        own = one.ring().info.ring
        (tmp_path / "rings" / name.replace("0123456789abcdef", own)).symlink_to(tmp_path / "secret")
        (window,) = RingReader(tmp_path / "rings").read().models
    assert kept(window.samples) == {}
    assert (tmp_path / "secret").exists()
