"""Whoever lost hears by what: the words follow the rule that chose."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from edgeml_converters.report.tried import settings_in_words, trials
from edgeml_converters.search.choose import choose
from edgeml_converters.search.outcome import Outcome
from edgeml_converters.search.turned_down import lost_too_much, why_not
from edgeml_converters.variants.gates import Gates
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import Row

from edgeml.converter import QuantizerSettings
from edgeml.manifest import Latency, Measured


def row(
    name,
    *,
    drop=0.0,
    sqnr=40.0,
    p50=1.0,
    size=1000,
    memory=None,
    scheme="int8_static",
    targets=("pi",),
    **more,
):
    latency = None if p50 is None else Latency(p50, p50, p50)
    measured = Measured(sqnr_db=sqnr, latency_ms=latency, peak_memory_bytes=memory)
    return Row(
        name, "litert", scheme, targets, QuantizerSettings(), size_bytes=size, measured=measured,
        drop_points=drop, **more,
    )  # fmt: skip


def told(rows, loser, objective="latency"):
    gates = Gates()
    choice = choose("pi", rows, gates, None, objective)
    assert choice.variant == "best"
    return why_not(next(one for one in rows if one.name == loser), choice, rows, gates, objective)


@pytest.mark.parametrize(
    ("rival", "objective", "words"),
    [
        (row("b", p50=7.6), "latency", "slower than best: 7.60 ms against 1.00 ms"),
        (row("b", p50=None), "latency", "not measured; best was"),
        (row("b", drop=0.5), "latency", "as fast as best, and loses more: 0.50 against 0.10 points"),
        (
            row("b", drop=0.1, sqnr=39.0, p50=0.98), "latency",
            "as fast as best, and further from the source: SQNR 39.0 against 40.0 dB",
        ),
        (row("b", drop=0.1, size=2000), "latency", "as fast as best, and larger: 2.0 kB against 1.0 kB"),
        (row("b", drop=0.1, p50=1.02), "latency", "as fast as best, and no better in anything"),
        (row("b", size=2000), "size", "larger than best: 2.0 kB against 1.0 kB"),
        (row("b", memory=3000), "memory", "needs more memory than best: 3.0 kB against 2.0 kB"),
        (row("b", drop=1.5, p50=0.1), "latency", "accuracy drop 1.50 points, allowed 1"),
    ],
)  # fmt: skip
def test_a_usable_variant_hears_by_what_it_lost(rival, objective, words):
    assert told([row("best", drop=0.1, memory=2000), rival], "b", objective) == words


def test_what_runs_on_the_cpu_gives_way_to_the_accelerator():
    compiled = row("best", p50=None, accelerator="edgetpu", mapping={"mapped": 9, "total": 10})
    assert told([compiled, row("b")], "b") == "runs on the CPU; best uses the edgetpu"
    compiled = replace(compiled, name="b", mapping={"mapped": 1, "total": 10})
    assert "less than half of it runs on the edgetpu" in told([row("best"), compiled], "b")


def test_without_accuracy_the_distance_from_the_source_counts():
    gates = Gates()
    assert lost_too_much(row("a", drop=None, sqnr=19.0), gates) == (
        "SQNR 19.0 dB, less than 20, and accuracy was not evaluated"
    )
    assert lost_too_much(row("a", drop=None, sqnr=21.0), gates) is None
    assert lost_too_much(row("a", drop=None, sqnr=1.0, scheme="float16"), gates) is None
    assert "was not measured" in lost_too_much(row("a", drop=None), Gates(max_drop=0.5))


def outcome(rows, targets, **gates):
    request = Request(Path("m.onnx"), targets=(), gates=Gates(**gates))
    choices = tuple(choose(one, rows, request.gates, None) for one in targets)
    return Outcome(request, None, tuple(rows), choices, SimpleNamespace(tried=list(rows)), (), "pc")


def test_a_verdict_names_the_targets_where_they_differ():
    rows = [
        row("quick", p50=1.0, drop=0.5, targets=("pi",)),
        row("middling", p50=2.0, drop=0.1, targets=("pi", "pc")),
        row("slow", p50=3.0, targets=("pi", "pc")),
    ]
    told = {one.row.name: (one.fate, one.verdict) for one in trials(outcome(rows, ("pi", "pc")))}
    assert told["quick"] == ("chosen", "chosen for pi")
    assert told["middling"] == ("chosen", "chosen for pc")
    of_pi, of_pc = (f"slower than {one}: 3.00 ms against" for one in ("quick", "middling"))
    assert told["slow"] == ("kept", f"kept; pi: {of_pi} 1.00 ms; pc: {of_pc} 2.00 ms")


def test_what_was_timed_with_other_engine_options_stands_behind_its_variant():
    other = replace(row("a", p50=2.0), options={"xnnpack": "false"}, reason="2 ms against 1 ms: not quicker")
    found = list(trials(outcome([replace(row("a"), other_options=(other,))], ("pi",))))
    assert [(one.settings, one.fate, one.verdict) for one in found] == [
        ("", "chosen", "chosen for pi"),
        ("xnnpack=false", "unused", "turned down: 2 ms against 1 ms: not quicker"),
    ]


def test_settings_are_told_where_they_are_not_the_usual_ones():
    settings = QuantizerSettings(
        method="percentile", reduce_range=True, io_dtype="int8", per_channel=False, equalize=True,
        float_tensors=("a",), bias_correction=True, sparsity=0.3, trimmed=True,
    )  # fmt: skip
    assert settings_in_words(replace(row("a"), settings=settings, edge_tpu=True)) == (
        "rewritten for the Edge TPU, ranges by percentile, 7-bit weights, one scale for each tensor, "
        "int8 input and output, channels brought together, corrected biases, 1 activation in float, "
        "30 % of the weights at 0, dead channels taken out"
    )
    assert settings_in_words(row("a")) == ""
