"""The report is safe to open, whatever a model's author wrote into its names."""

import xml.etree.ElementTree as ET

import numpy as np
import onnx
import pytest
from edgeml_converters.convert import convert

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
    )
    assert [row.status for row in result.rows] == ["ok", "ok"], [row.reason for row in result.rows]
    return (folder / "out/report.html").read_text()


def test_names_from_files_are_escaped(page):
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_nothing_is_loaded_from_anywhere(page):
    assert "default-src 'none'" in page
    assert "https://" not in page.replace("https://matplotlib.org", "")
    assert "src=" not in page.replace("img src=x", "")


def test_the_pictures_are_well_formed_and_scale_with_the_page(page):
    pictures = [part.partition("</svg>")[0] + "</svg>" for part in page.split("<figcaption>")[1:]]
    assert len(pictures) == 3
    for picture in pictures:
        svg = ET.fromstring(picture[picture.index("<svg") :])  # noqa: S314 - our own drawing
        assert "viewBox" in svg.attrib
        assert "width" not in svg.attrib
        assert svg.attrib["role"] == "img"


def test_the_summary_names_the_choice_and_findings_are_there(page):
    assert "the only usable" in page or "the fastest of" in page or "int8 is slower here" in page
    assert "calibration-evaluation-overlap" in page
    assert 'name="viewport"' in page
