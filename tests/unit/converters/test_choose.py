"""The rule that picks a variant for a target."""

from dataclasses import replace

import pytest
from edgeml_converters.search.choose import choose
from edgeml_converters.variants.gates import Gates
from edgeml_converters.variants.rows import Row

from edgeml.converter import QuantizerSettings
from edgeml.manifest import Latency, Measured


def row(name, p50=None, drop=None, size=100_000, *, status="ok", targets=("board",), reason="", sqnr=None):
    runtime, scheme = name.split("-", 1)
    return Row(
        name=name,
        runtime=runtime,
        scheme=scheme,
        targets=targets,
        settings=QuantizerSettings(),
        status=status,
        reason=reason,
        size_bytes=size,
        drop_points=drop,
        measured=Measured(latency_ms=None if p50 is None else Latency(p50, p50, p50), sqnr_db=sqnr),
    )


def chosen(rows, gates=None, measured_on=None, objective="latency"):
    return choose("board", rows, gates or Gates(), measured_on, objective)


def test_the_fastest_within_the_allowed_drop():
    choice = chosen([row("litert-float32", 2.0, 0.0), row("litert-int8_static", 1.0, 0.9)])
    assert choice.variant == "litert-int8_static"
    assert "the fastest of 2 variants that lose at most 1 point" in choice.reason


def test_slower_int8_is_said_plainly():
    choice = chosen([row("litert-float32", 1.0, 0.0), row("litert-int8_static", 1.2, 0.1)])
    assert choice.variant == "litert-float32"
    assert "int8 is slower here: float32 kept (1 ms against 1.2 ms" in choice.reason


def test_faster_int8_that_loses_too_much_is_left():
    choice = chosen([row("litert-float32", 2.0, 0.0), row("litert-int8_static", 1.0, 3.0)])
    assert choice.variant == "litert-float32"
    assert "loses too much: 3.00 points below float" in choice.reason


def test_what_loses_too_much_does_not_suit_the_target():
    rows = [row("litert-float32", 2.0, 0.0), row("litert-int8_static", 1.0, 3.0)]
    assert chosen(rows).suiting == ("litert-float32",)


def test_without_latency_the_smallest_wins_and_without_data_the_reason_says_so():
    choice = chosen([row("litert-float32", size=400), row("litert-int8_static", size=100, sqnr=30.0)])
    assert choice.variant == "litert-int8_static"
    assert "accuracy was not evaluated" in choice.reason


@pytest.mark.parametrize("sqnr", [19.9, None])
def test_unknown_accuracy_and_outputs_far_from_the_source_keep_float(sqnr):
    choice = chosen([row("litert-float32", 2.0, sqnr=300.0), row("litert-int8_static", 1.0, sqnr=sqnr)])
    assert choice.variant == "litert-float32"
    assert choice.suiting == ("litert-float32",)
    assert "accuracy was not evaluated, so that litert-int8_static below 20 dB SQNR did not count" in (
        choice.reason
    )


def test_a_target_with_only_poor_variants_gets_the_nearest_one_and_is_told():
    choice = chosen([row("litert-int8_static", 1.0, sqnr=8.0), row("litert-int16x8", 2.0, sqnr=15.0)])
    assert choice.variant == "litert-int16x8"
    assert "SQNR 15.0 dB" in choice.reason
    assert "none reaches 20 dB" in choice.reason


def test_latencies_within_5_per_cent_are_equal_and_accuracy_decides():
    rows = [row("litert-float32", 1.04, 0.0, size=400), row("litert-int8_static", 1.0, 0.6, size=100)]
    choice = chosen(rows)
    assert choice.variant == "litert-float32"
    assert "the most accurate of those within 5 % of the lowest latency of 2" in choice.reason
    assert chosen([rows[0], row("litert-int8_static", 1.0, 0.0, size=100)]).variant == "litert-int8_static"
    assert chosen([row("litert-float32", 1.06, 0.0), rows[1]]).variant == "litert-int8_static"


def test_equal_latency_and_accuracy_leave_it_to_the_size():
    rows = [row("litert-float32", 1.0, 0.0, size=400), row("litert-int8_static", 1.04, 0.0, size=100)]
    assert chosen(rows).variant == "litert-int8_static"
    assert "the smallest of those within 5 %" in chosen(rows).reason


def test_what_another_engine_than_litert_asks_of_the_device_is_said():
    assert (
        "the device needs pip install 'edgeml-runtimes[openvino]'" in chosen([row("openvino-float32")]).reason
    )
    assert "the device needs" not in chosen([row("litert-float32")]).reason


def test_nobodys_gate_does_not_leave_a_target_empty():
    choice = chosen([row("litert-int8_static", 1.0, 3.0), row("openvino-int8_static", 2.0, 2.0)])
    assert choice.variant == "openvino-int8_static"
    assert "none stays within 1 point" in choice.reason


def test_only_gated_rows_leave_the_target_empty_by_the_gate():
    choice = chosen([row("litert-int8_static", status="gate", reason="accuracy drop 3.00 points, allowed 1")])
    assert choice.variant is None
    assert choice.gated
    assert "accuracy drop 3.00" in choice.reason


def test_nothing_made_is_not_a_gate():
    choice = chosen([row("litert-int8_static", status="failed", reason="the quantizer died")])
    assert (choice.variant, choice.gated) == (None, False)
    assert "the quantizer died" in choice.reason


def test_rows_of_other_targets_do_not_count():
    choice = chosen([row("litert-float32", 1.0, 0.0), row("openvino-float32", 0.1, 0.0, targets=("other",))])
    assert choice.variant == "litert-float32"
    assert "the only usable variant" in choice.reason


def test_latency_of_another_class_of_machine_is_marked():
    choice = chosen([row("litert-float32", 1.0, 0.0)], measured_on="x86-64-amx")
    assert choice.foreign_latency
    assert "provisional: latency was measured on x86-64-amx, not on board" in choice.reason


def test_nothing_is_said_of_int8_being_slow_from_another_machines_latency():
    rows = [row("litert-float32", 1.0, 0.0), row("litert-int8_static", 1.5, 0.0)]
    assert "int8 is slower" not in chosen(rows, measured_on="x86-64-amx").reason


def test_each_gate_names_its_number():
    made = row("litert-int8_static", 2.0, 3.0, 200)
    assert Gates().broken_by(made) is None
    unmeasured = replace(made, measured=Measured(), drop_points=None)
    assert "accuracy was not measured" in Gates(max_drop=1).broken_by(unmeasured)
    assert "latency was not measured" in Gates(max_latency_ms=1).broken_by(unmeasured)
    assert Gates(max_drop=1).broken_by(made) == "accuracy drop 3.00 points, allowed 1"
    assert Gates(max_latency_ms=1).broken_by(made) == "latency 2 ms (p50), allowed 1 ms"
    assert Gates(max_size_bytes=100).broken_by(made) == "size 200 bytes, allowed 100 bytes"


def compiled(mapped, p50=None, drop=None, sqnr=30.0):
    made = row("litert-int8_static", p50, drop, 200_000, sqnr=sqnr)
    mapping = {"mapped": mapped, "total": 10}
    return replace(made, name="litert-int8_static-edgetpu", accelerator="edgetpu", mapping=mapping)


def test_what_uses_the_accelerator_goes_before_the_cpu_as_long_as_nobody_timed_it():
    on_cpu = [row("litert-int8_static", 1.0, 0.1), row("litert-float32", 2.0, 0.0)]
    choice = chosen([*on_cpu, compiled(9, drop=0.1)])
    assert choice.variant == "litert-int8_static-edgetpu"
    assert "9 of 10 operators on the edgetpu" in choice.reason
    assert "not timed" in choice.reason
    assert choice.suiting == ("litert-int8_static", "litert-float32", "litert-int8_static-edgetpu")


def test_what_uses_the_accelerator_and_was_timed_is_judged_by_its_time():
    on_cpu = row("litert-int8_static", 1.0, 0.1)
    assert chosen([on_cpu, compiled(9, 0.3, 0.1)]).variant == "litert-int8_static-edgetpu"
    assert chosen([on_cpu, compiled(9, 3.0, 0.1)]).variant == "litert-int8_static"


def test_what_hardly_uses_the_accelerator_waits_until_it_is_timed():
    on_cpu = row("litert-int8_static", 1.0, 0.1)
    assert chosen([on_cpu, compiled(2, drop=0.1)]).variant == "litert-int8_static"
    assert chosen([row("litert-int8_static", size=500_000, sqnr=30.0), compiled(2)]).variant == on_cpu.name
    assert chosen([compiled(2, drop=0.1)]).variant == "litert-int8_static-edgetpu"


def test_what_uses_the_accelerator_and_loses_too_much_is_left():
    choice = chosen([row("litert-float32", 2.0, 0.0), compiled(10, drop=3.0)])
    assert choice.variant == "litert-float32"


def test_the_smallest_wins_where_size_is_the_objective():
    rows = [row("litert-float32", 1.0, 0.0, 400_000), row("litert-int8_static", 2.0, 0.4, 100_000)]
    choice = chosen(rows, objective="size")
    assert choice.variant == "litert-int8_static"
    assert "the smallest of 2 variants that lose at most 1 point" in choice.reason


def test_the_least_memory_wins_where_memory_is_the_objective_and_what_is_near_counts_as_equal():
    def with_peak(one, peak):
        return replace(one, measured=replace(one.measured, peak_memory_bytes=peak))

    rows = [
        with_peak(row("litert-float32", 1.0, 0.0), 40_000_000),
        with_peak(row("litert-int8_static", 2.0, 0.9), 20_000_000),
        with_peak(row("litert-int8_dynamic", 3.0, 0.1), 20_900_000),
    ]
    choice = chosen(rows, objective="memory")
    assert choice.variant == "litert-int8_dynamic"
    assert "20.9 MB of memory; the most accurate of those within 5 % of the least memory" in choice.reason


def test_without_what_the_objective_needs_the_smallest_wins():
    rows = [row("litert-float32", drop=0.0, size=4000), row("litert-int8_static", drop=0.4, size=1000)]
    assert chosen(rows, objective="memory").variant == "litert-int8_static"


@pytest.mark.parametrize(
    ("gates", "nearest"),
    [
        (Gates(max_latency_ms=0.5), "litert-int8_static"),
        (Gates(max_drop=-1.0), "litert-float32"),
        (Gates(max_size_bytes=10_000), "litert-float16"),
        (Gates(max_drop=0.5, max_latency_ms=1.5), "litert-float16"),
        (Gates(max_slice_drop=1.0), "litert-float32"),  # measured nowhere: the first
    ],
)
def test_where_nothing_holds_the_gates_the_nearest_is_named(gates, nearest):
    rows = [
        row("litert-float32", 2.0, 0.0),
        row("litert-float16", 1.8, 0.2, size=50_000),
        row("litert-int8_static", 1.0, 5.0, size=60_000),
    ]
    gated = [one.without("gate", gates.broken_by(one)) for one in rows]
    choice = chosen(gated, gates)
    assert choice.variant is None
    assert choice.gated
    assert f"nearest is {nearest} (of 3): " in choice.reason
