"""The report is safe to open, whatever a model's author wrote into its names."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import onnx
import pytest
from edgeml_converters.convert import convert
from edgeml_converters.evaluate.metrics import open_metric
from edgeml_converters.report.charts import drops, parity, ranges, ranking, scatters, short_names, times
from edgeml_converters.report.page import page_steps
from edgeml_converters.sensitivity.noise import Sensitivity
from edgeml_converters.variants.rows import Row, StepTrace

from edgeml.converter import QuantizerSettings
from edgeml.manifest import Latency, Measured

HOSTILE = '<script>alert("1")</script>$\\frac{1}{$&'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "weights"], [HOSTILE], name="first"),
            onnx.helper.make_node("Relu", [HOSTILE], ["y"], name="second"),
        ],
        "hostile",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 8])],
        [onnx.numpy_helper.from_array(rng.normal(size=(64, 8)).astype(np.float32), "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    file = folder / '<img src=x onerror="alert(1)">.onnx'
    onnx.save(model, file)
    samples = rng.normal(size=(40, 64)).astype(np.float32)
    np.save(folder / "c.npy", samples)
    np.savez(folder / "e.npz", x=samples[:20], y=np.zeros(20, np.int64))
    result = convert(
        file,
        calibration=folder / "c.npy",
        evaluation=folder / "e.npz",
        runtimes=("onnxruntime",),
        output=folder / "out",
        name="hostile",
        max_latency_ms=10_000,
    )
    assert [row.status for row in result.rows] == ["ok", "ok"], [row.reason for row in result.rows]
    return (folder / "out/report.html").read_text()


def test_names_from_files_are_escaped(page):
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_nothing_is_loaded_from_anywhere(page):
    assert "default-src 'none'" in page
    assert "://" not in page
    assert "src=" not in page.replace("img src=x", "")


def test_there_is_a_picture_for_wide_and_one_for_narrow_screens(page):
    pictures = [ET.fromstring(f"<svg{part.partition('</svg>')[0]}</svg>") for part in page.split("<svg")[1:]]  # noqa: S314 - our own drawing
    assert [picture.attrib["class"] for picture in pictures] == ["wide", "narrow"]
    for picture in pictures:
        _, _, width, _ = map(float, picture.attrib["viewBox"].split())
        # not scaled: letters are as large as they say
        assert width == float(picture.attrib["width"])
        assert len(picture.findall(".//circle[@class='ring']")) == 1
        numbers = [text.text.strip("★") for text in picture.findall(".//text[@class='number']")]
        assert sorted(numbers) == ["1", "2"]
    assert float(pictures[1].attrib["width"]) <= 358


def test_each_cell_says_what_it_is_where_rows_become_cards(page):
    for label in ("top1", "p50, ms", "size", "p99, ms", "load, ms", "memory", "status"):
        table = page.partition("<h2>Variants</h2>")[2].partition("</table>")[0]
        assert table.count(f'data-label="{label}"') == 2, label


def test_the_page_says_how_its_figures_came_about(page):
    for said in (
        "e.npz",
        "c.npy",
        "label offset 0",
        "calibration method default",
        "p50 ≤ 10000 ms; what loses more than 1 point is chosen only if nothing loses less",
        "onnxruntime 1.",
        "Python 3.",
    ):
        assert said in page, said
    assert re.search(r"made \d{4}-\d\d-\d\d \d\d:\d\d UTC", page)


def test_calibrated_ranges_name_the_variant(page):
    assert "<summary>onnxruntime-int8_static <" in page


def test_the_summary_names_the_choice_and_findings_are_there(page):
    assert "the only usable" in page or "the fastest of" in page or "int8 is slower here" in page
    assert "calibration-evaluation-overlap" in page
    assert 'name="viewport"' in page


def measured(place, accuracy, p50=1.0):
    return Row(
        f"litert-{place}", "litert", "float32", (), QuantizerSettings(), size_bytes=1000,
        measured=Measured(accuracy=accuracy, latency_ms=Latency(p50, p50, p50)),
    )  # fmt: skip


def test_no_axis_promises_more_than_100_per_cent():
    rows = [measured(0, 0.95), measured(1, 1.0)]
    for chart in scatters(rows, open_metric("top1"), frozenset()):
        assert max(float(tick.text) for tick in chart.y_ticks) <= 100
        assert all(0 < point.y < chart.bottom for point in chart.points)


def test_numbers_of_variants_that_coincide_stand_apart():
    rows = [measured(place, 0.9) for place in range(14)]
    for chart in scatters(rows, open_metric("top1"), frozenset()):
        places = [(point.label_x, point.label_y) for point in chart.points]
        for number, (x, y) in enumerate(places):
            assert all(abs(x - a) > 12 or abs(y - b) > 10 for a, b in places[number + 1 :])


def test_latencies_of_two_magnitudes_are_on_a_logarithmic_axis():
    rows = [measured(0, 0.9, 0.05), measured(1, 0.9, 5.0)]
    assert scatters(rows, None, frozenset()) == ()  # neither accuracy nor SQNR
    wide, narrow = scatters(rows, open_metric("top1"), frozenset({"litert-1"}))
    assert "logarithmic" in wide.x_title
    assert {"0.1", "1"} <= {tick.text for tick in narrow.x_ticks}
    assert [point.chosen for point in sorted(wide.points, key=lambda one: one.number)] == [False, True]


def test_two_steps_of_one_name_are_told_apart_by_their_quantizer_profile():
    steps = [StepTrace("quantize", "onnx/float32", "onnx/int8_static", 1.0, cached=False) for _ in range(2)]
    rows = [
        Row("a", "onnxruntime", "int8_static", (), QuantizerSettings(), steps=steps[:1]),
        Row("b", "onnxruntime", "int8_static", (), QuantizerSettings(reduce_range=True), steps=steps[1:]),
        Row("c", "onnxruntime", "int8_static", (), QuantizerSettings(), steps=steps[:1]),
    ]
    assert [(one.title, one.variants) for one in page_steps(rows)] == [
        ("quantize (8-bit weights)", ("a", "c")),
        ("quantize (7-bit weights)", ("b",)),
    ]


def test_bars_stay_on_their_track():
    bars = parity([("a", 400.0, False), ("b", -3.0, True)])
    assert [(bar.width, bar.value) for bar in bars] == [(100.0, "exact"), (0.0, "-3.0 dB")]
    for bar in ranges({"x" * 99 + "tail": (-200.0, 3.0), "y": (0.0, 0.0), "z": (float("-inf"), 1.0)}):
        assert bar.left >= 0
        assert bar.left + bar.width <= 100.1
        assert len(bar.name) <= 46
    assert ranges({"x" * 99 + "tail": (0.0, 1.0)})[0].name.endswith("tail")


def test_an_activation_that_stays_in_float_is_told_from_one_that_loses_much():
    found = [
        Sensitivity("a", -1.0, 0.0, 6.0),
        Sensitivity("b", 19.9, -1.0, 1.0),
        Sensitivity("c", 99.0, 0, 1),
    ]
    bars = ranking(found, frozenset("a"))
    assert [(bar.width, bar.value) for bar in bars] == [
        (0.0, "-1.0 dB, in float"),
        (33.2, "19.9 dB"),
        (100.0, "99.0 dB"),
    ]
    assert len({bar.tone for bar in bars}) == 3


def test_losses_are_drawn_to_the_left_and_gains_to_the_right():
    lost, none, gained = drops([10.0, 0.0, -5.0])
    assert (lost.left, lost.width) == (0.0, 50.0)
    assert none.width == 0.0
    assert (gained.left, gained.width) == (50.0, 25.0)
    assert lost.tone != gained.tone
    assert [bar.width for bar in drops([0.0])] == [0.0]


def test_times_before_and_after_are_on_one_scale():
    bars = times([(2.0, 1.0), (0.5, 0.0)])
    assert [[bar.width for bar in pair] for pair in bars] == [[100.0, 50.0], [25.0, 0.0]]
    assert [bar.width for pair in times([(0.0, 0.0)]) for bar in pair] == [0.0, 0.0]


def test_cut_names_keep_what_tells_them_apart():
    names = [f"Network/Network/Conv_{number}_depthwise/BatchNorm_Fold/bias_prequant" for number in (1, 13)]
    assert list(short_names([*names, "input"]).values()) == [
        "…Conv_1_depthwise…",
        "…Conv_13_depthwise…",
        "input",
    ]
    assert short_names(["x" * 60 + "tail"])["x" * 60 + "tail"].endswith("tail")


def test_a_page_without_a_variant_names_the_data_that_were_given(tmp_path):
    file = tmp_path / "m.onnx"
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "m", sides[:1], sides[1:])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), file
    )
    np.save(tmp_path / "c.npy", np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    result = convert(
        file,
        schemes=("int16x8",),
        runtimes=("onnxruntime",),
        calibration=tmp_path / "c.npy",
        output=tmp_path / "out",
    )
    assert [row.status for row in result.rows] == ["unavailable"]
    page = result.report.read_text()
    assert "c.npy</code> was given and not read" in page
    assert "No data were given" not in page
    assert "<h2>Variants</h2>" not in page
