"""Objects in Python convert like files."""

import numpy as np
import pytest

import edgeml
from edgeml.data import DataDeclaration
from edgeml_converters.convert import convert


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    found = datasets.load_digits()
    return found.data.astype(np.float32), found.target


def test_a_fitted_estimator_becomes_a_bundle_that_predicts_the_same(digits, tmp_path):
    pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier

    features, labels = digits
    estimator = MLPClassifier((16,), max_iter=60, random_state=0, tol=0.01).fit(
        features[:1000], labels[:1000]
    )
    np.savez(tmp_path / "e.npz", x=features[1000:1400], y=labels[1000:1400])
    result = convert(
        estimator,
        example_inputs=features[:1],
        evaluation=DataDeclaration(str(tmp_path / "e.npz")),
        metric="top1",
        postprocess=edgeml.preprocess.Postprocess(output="probabilities"),
        runtimes=("onnxruntime", "openvino"),
        measure=False,
        output=tmp_path / "out",
        name="digits",
    )
    accuracy = estimator.score(features[1000:1400], labels[1000:1400])
    assert [row.status for row in result.rows] == ["ok", "ok"], [row.reason for row in result.rows]
    assert [row.measured.accuracy for row in result.rows] == pytest.approx([accuracy, accuracy], abs=0.003)
    assert result.bundle == tmp_path / "out/digits-1.edgeml"
