"""What is recorded is what is read, once; what cannot be recorded stops no inference."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeml.errors import UsageError
from edgeml.telemetry import recorder
from edgeml.telemetry.exponential import histogram_of, merge
from edgeml.telemetry.reading import RingReader
from edgeml.telemetry.reference import CONFIDENCE, FeatureReference, JointReference, Reference
from edgeml.telemetry.report import OTHER
from edgeml.telemetry.settings import TelemetrySettings
from tests.conftest import REPOSITORY
from tests.unit.core.telemetry.rings import PROGRAM, WAIT_S, begin, calls, python
from tests.waiting import eventually


def test_an_inference_is_read_once_with_all_that_was_said_of_it(tmp_path: Path) -> None:
    reader = RingReader(tmp_path)
    with begin(tmp_path) as one:
        one.record(0.25, "cat", 0.75)
        one.record(0.5, 7, error=ValueError("x"))
        with one.infer() as call:
            call.label, call.confidence = "cat", 0.5
        with pytest.raises(KeyError), one.infer():
            raise KeyError
        (window,) = reader.read().models
        assert reader.read().models == ()
    assert (window.model, window.release, window.variant, window.runtime) == ("m", 3, "v", "r")
    assert window.calls == 4
    assert window.classes == {"cat": 2, "7": 1}
    assert window.errors == {"ValueError": 1, "KeyError": 1}
    assert window.latency["total"].total == 4
    assert window.latency["total"].max == 0.5
    assert window.confidence == histogram_of([0.75, 0.5])
    assert (window.processes, window.killed) == (1, 0)
    failed = Counter(sample.error for sample in window.samples if sample.why == "error")
    assert failed == {"ValueError": 1, "KeyError": 1}
    assert len(window.samples) == 4


def test_a_decorated_function_is_timed_and_its_exceptions_go_on(tmp_path: Path) -> None:
    one = begin(tmp_path)

    @one
    def half(x: int) -> float:
        """Divide."""
        return x / 2

    assert (half(4), half.__doc__) == (2, "Divide.")
    with pytest.raises(TypeError):
        half("x")  # type: ignore[arg-type] # the mistake under test
    one.close()
    assert half(6) == 3  # and is not recorded
    one.record(1.0, "late", 1.0)
    (window,) = RingReader(tmp_path).read().models
    assert (window.calls, window.errors) == (2, {"TypeError": 1})


recorded = st.tuples(
    st.floats(0, 1e6),
    st.none() | st.sampled_from(["a", "b", "ä" * 50]) | st.integers(-1, 5),
    st.none() | st.floats(0, 1, width=32),
    st.none() | st.sampled_from(["InferenceError", "OSError"]),
)


@settings(max_examples=60)
@given(batches=st.lists(st.lists(recorded, max_size=150), max_size=6), seed=st.integers(0, 9))
def test_what_is_read_and_what_was_overwritten_is_what_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[Any, ...]]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("rings")
    positions: dict[str, int] = {}
    with begin(folder, slots=64) as one:
        for batch in batches:
            for latency_s, label, confidence, error in batch:
                one.record(latency_s, label, confidence, error)
            # each time as after a restart
            drained = RingReader(folder, positions, random_numbers=random.Random(seed)).read()  # noqa: S311
            positions = dict(drained.positions)
            there = batch[drained.overwritten :]
            assert drained.overwritten in ({0} if len(batch) <= 64 else {len(batch) - 48})
            assert calls(drained) == len(there)
            if not there:
                continue
            (window,) = drained.models
            total = histogram_of(latency_s for latency_s, *_ in there)
            assert window.latency["total"].counts == total.counts
            assert (window.latency["total"].zero, window.latency["total"].max) == (total.zero, total.max)
            assert window.latency["total"].sum_nano == pytest.approx(total.sum_nano, rel=1e-9, abs=100)
            texts = Counter(str(label)[:31] if label == "ä" * 50 else str(label) for _, label, _, _ in there)
            del texts["None"]
            assert window.classes == texts
            assert window.errors == Counter(error for *_, error in there if error)
            certain = [confidence for _, _, confidence, _ in there if confidence is not None]
            assert (window.confidence.total if window.confidence else 0) == len(certain)
            if window.confidence:
                assert window.confidence.sum_nano == histogram_of(certain).sum_nano


@settings(max_examples=100)
@example([1e9, 1e-9, 5e-324])
@example([1e9])
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.floats(1e-9, 1e9), max_size=200))
def test_many_values_are_binned_as_each_would_be(values: list[float]) -> None:
    from edgeml.telemetry.binning import binned

    at_once, each = binned(values), histogram_of(values)
    assert (at_once.counts, at_once.offset, at_once.zero) == (each.counts, each.offset, each.zero)
    assert (at_once.min, at_once.max) == (each.min, each.max)
    assert at_once.sum_nano == pytest.approx(each.sum_nano, rel=1e-9, abs=len(values))


def test_an_overflow_is_counted(tmp_path: Path) -> None:
    reader = RingReader(tmp_path)
    with begin(tmp_path, slots=64) as one:
        for _ in range(1000):
            one.record(0.1)
        drained = reader.read()
        assert (calls(drained), drained.overwritten) == (48, 952)
        one.record(0.1)
        assert calls(reader.read()) == 1


def test_many_labels_and_errors_are_counted_together_as_other(tmp_path: Path) -> None:
    with begin(tmp_path, slots=4096) as one:
        for number in range(3000):
            one.record(0.1, number, error=f"Error{number}")
        (window,) = RingReader(tmp_path).read().models
    assert (len(window.classes), len(window.errors)) == (32, 16)
    assert sum(window.classes.values()) == sum(window.errors.values()) == 3000
    assert window.classes[OTHER] == 3000 - 31


def test_threads_share_a_ring_and_lose_nothing(tmp_path: Path) -> None:
    count, made = 5000, [0] * 6

    def got_further(then: list[int]) -> bool:
        return all(now > was or now == count for now, was in zip(made, then, strict=True))

    reader, read = RingReader(tmp_path), []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with begin(tmp_path, slots=2**16) as one:

            def work(label: int) -> None:
                for number in range(count):
                    one.record(0.1, label)
                    made[label] = number + 1

            threads = [threading.Thread(target=work, args=(label,)) for label in range(6)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                read.append(reader.read())
                # a number that is not there at two readings is given up, and devices read every ten seconds:
                # here each thread has got further until the next one
                eventually(partial(got_further, list(made)))
            for thread in threads:
                thread.join()
            read.append(reader.read())
    finally:
        sys.setswitchinterval(before)
    classes: Counter[str] = Counter()
    for drained in read:
        for window in drained.models:
            classes.update(window.classes)
    assert classes == {str(label): 5000 for label in range(6)}
    assert sum(drained.overwritten for drained in read) == 0
    histograms = [window.latency["total"] for drained in read for window in drained.models]
    assert merge(histograms).total == 30_000


def test_features_are_counted_between_the_edges_of_the_reference(tmp_path: Path) -> None:
    feature = FeatureReference("mean", (0.0, 1.0), (1, 1, 1), std=1.0)
    other = FeatureReference("std", (2.0,), (1, 1), std=1.0)
    confidence = FeatureReference(CONFIDENCE, (0.5,), (1, 1))
    joint = JointReference(
        seed=1,
        frequencies=4,
        scale=1.0,
        features=("std", "mean"),
        mean=(0.0,) * 8,
        std=(1.0,) * 8,
        spectrum=(1.0,) * 8,
        count=9,
    )
    reference = Reference(9, (feature, other), confidence=confidence, joint=joint, digest="0" * 16)
    reader = RingReader(tmp_path, references=lambda _model, release: reference if release == 3 else None)
    with begin(tmp_path, features=["std", "mean"]) as one:
        one.record(0.1, confidence=0.4, features=[1.0, -1.0])
        one.record(0.1, confidence=0.6, features={"mean": 0.0, "std": 2.0})
        one.record(0.1, confidence=0.6, features=[3.0, 1.5])
        one.record(0.1, features=[float("nan"), 0.5])
        with pytest.raises(UsageError, match="3 features"):
            one.record(0.1, features=[1.0, 2.0, 3.0])
        (window,) = reader.read().models
    assert window.features == {"mean": (1, 2, 1), "std": (1, 3), CONFIDENCE: (1, 2)}
    assert (len(window.rff_sum), window.rff_count, window.reference) == (8, 3, "0" * 16)
    assert {sample.features for sample in window.samples} >= {(1.0, -1.0), (3.0, 1.5)}


def test_samples_are_random_failed_or_unsure_and_no_call_is_taken_twice(tmp_path: Path) -> None:
    with begin(tmp_path) as one:
        for number in range(500):
            one.record(
                number + 1.0, confidence=0.1 if number == 77 else 0.9, error="E" if number < 40 else None
            )
        (window,) = RingReader(tmp_path).read().models
    assert Counter(sample.why for sample in window.samples)["error"] == 10
    assert len(window.samples) <= 20
    assert len({sample.latency_s for sample in window.samples}) == len(window.samples)
    assert 78.0 in {sample.latency_s for sample in window.samples if sample.why == "unsure"}
    assert all(sample.raw is None for sample in window.samples)


# --- switched off, or impossible


def test_what_is_switched_off_leaves_no_file(tmp_path: Path) -> None:
    off = TelemetrySettings(record="off", folder=str(tmp_path / "rings"))
    with recorder("m", settings=off) as one:
        one.record(0.1, features={"a": 1.0})
    assert not (tmp_path / "rings").exists()


def test_where_there_is_no_room_inferences_go_on_and_it_is_said_once(tmp_path: Path) -> None:
    program = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        for name in "ab":
            with recorder(name, settings=own) as one:
                for _ in range(5000):
                    one.record(0.1, "x", 0.5)
        print("went on")
    """
    said, warned = python(tmp_path, program).communicate(timeout=WAIT_S)
    assert said == "went on\n"
    assert warned.count("TelemetryWarning") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rings").symlink_to("elsewhere")
    python(tmp_path / "rings", "recorder('m', settings=own).record(0.1)").communicate(timeout=WAIT_S)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_standard_library_is_enough(tmp_path: Path) -> None:
    program = """
        from pathlib import Path
        import edgeml.telemetry.device, edgeml.telemetry.judging
        from edgeml.telemetry.reading import RingReader
        with recorder("m", settings=own) as one:
            one.record(0.1, "x", 0.5, features={"a": 1.0})
            print(RingReader(Path(own.folder)).read().models[0].calls)
        own_names = {"edgeml", "__main__", "__mp_main__"}
        foreign = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names - own_names
        print(sorted(foreign))
    """
    blocked = (
        f"import sys; sys.path = [p for p in sys.path if 'site-packages' not in p] + [{str(REPOSITORY)!r}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", blocked + PROGRAM + textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1\n[]\n", "")
