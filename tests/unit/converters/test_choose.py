"""The rule that picks a variant for a target."""

from edgeml_converters.variants.choose import Gates, choose
from edgeml_converters.variants.rows import Row

from edgeml.converter import QuantizerSettings
from edgeml.manifest import Latency, Measured


def row(name, p50=None, drop=None, size=100_000, *, status="ok", targets=("board",), reason=""):
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
        measured=Measured(latency_ms=None if p50 is None else Latency(p50, p50, p50)),
    )


def chosen(rows, gates=None, measured_on=None):
    return choose("board", rows, gates or Gates(), measured_on)


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
    choice = chosen([row("litert-float32", size=400), row("litert-int8_static", size=100)])
    assert choice.variant == "litert-int8_static"
    assert "accuracy was not evaluated" in choice.reason


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
    assert "measured on x86-64-amx, not on board" in choice.reason


def test_each_gate_names_its_number():
    made = row("litert-int8_static", 2.0, 3.0, 200)
    assert Gates().broken_by(made) is None
    assert Gates(max_drop=1).broken_by(made) == "accuracy drop 3.00 points, allowed 1"
    assert Gates(max_latency_ms=1).broken_by(made) == "latency 2 ms (p50), allowed 1 ms"
    assert Gates(max_size_bytes=100).broken_by(made) == "size 200 bytes, allowed 100 bytes"
