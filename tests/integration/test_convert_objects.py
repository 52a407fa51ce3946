"""Objects in Python convert like files."""

from importlib.util import find_spec

import numpy as np
import pytest
from edgeml_converters.convert import convert

from edgeml.data import DataDeclaration
from edgeml.preprocess import Postprocess


@pytest.fixture(scope="module")
def digits(require):
    for name in ("sklearn", "skl2onnx"):
        require(find_spec(name), f"{name} is not installed: pip install 'edgeml-converters[sklearn]'")
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.data.astype(np.float32) / 16, found.target


def test_a_fitted_estimator_becomes_a_bundle_though_one_runtime_lacks_its_operator(digits, tmp_path):
    from sklearn.linear_model import LogisticRegression

    features, labels = digits
    estimator = LogisticRegression(max_iter=5000).fit(features[:1000], labels[:1000])
    np.savez(tmp_path / "e.npz", x=features[1000:1400], y=labels[1000:1400])
    result = convert(
        estimator,
        example_inputs=features[:1],
        evaluation=DataDeclaration(str(tmp_path / "e.npz")),
        metric="top1",
        postprocess=Postprocess(output="probabilities"),
        runtimes=("onnxruntime", "openvino"),
        measure=False,
        output=tmp_path / "out",
        name="digits",
    )
    accuracy = estimator.score(features[1000:1400], labels[1000:1400])
    onnxruntime, openvino = result.rows
    assert onnxruntime.status == "ok"
    assert onnxruntime.measured.accuracy == pytest.approx(accuracy, abs=0.003)
    assert (openvino.status, bool(openvino.reason)) == ("failed", True)
    assert result.bundle == tmp_path / "out/digits-1.edgeml"
