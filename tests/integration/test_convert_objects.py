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


def converted(estimator, features, labels, tmp_path, **options):
    np.savez(tmp_path / "c.npz", x=features[:200])
    np.savez(tmp_path / "e.npz", x=features[1000:1400], y=labels[1000:1400])
    return convert(
        estimator,
        example_inputs=features[:1],
        calibration=DataDeclaration(f"{tmp_path / 'c.npz'}:x"),
        evaluation=DataDeclaration(str(tmp_path / "e.npz")),
        metric="top1",
        postprocess=Postprocess(output="probabilities"),
        measure=False,
        output=tmp_path / "out",
        name="digits",
        **options,
    )


def scaled_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))


def network():
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((32,), max_iter=600, random_state=0)


@pytest.mark.worker("onnx2tf")
@pytest.mark.parametrize("estimator", [scaled_regression, network])
def test_matrix_products_become_a_bundle_for_every_runtime(digits, tmp_path, estimator):
    features, labels = digits
    model = estimator().fit(features[:1000], labels[:1000])
    result = converted(model, features, labels, tmp_path)
    accuracy = model.score(features[1000:1400], labels[1000:1400])
    plain = [row for row in result.rows if not row.settings.float_tensors]  # mixed ones mend what int8 loses
    assert [row.status for row in plain] == ["ok"] * 6, [row.reason for row in result.rows]
    for row in plain:
        assert [(port.name, port.shape) for port in row.outputs] == [("probabilities", (1, 10))], row.name
        allowed = 0.003 if row.scheme == "float32" else 0.02
        assert row.measured.accuracy == pytest.approx(accuracy, abs=allowed), row.name
    assert result.bundle == tmp_path / "out/digits-1.edgeml"


def test_trees_run_on_onnx_runtime_alone_and_the_others_say_why(digits, tmp_path):
    from sklearn.ensemble import RandomForestClassifier

    features, labels = digits
    model = RandomForestClassifier(10, random_state=0).fit(features[:1000], labels[:1000])
    result = converted(model, features, labels, tmp_path, runtimes=("onnxruntime", "openvino"))
    rows = {(row.runtime, row.scheme): row for row in result.rows}
    accuracy = model.score(features[1000:1400], labels[1000:1400])
    assert rows["onnxruntime", "float32"].measured.accuracy == pytest.approx(accuracy, abs=0.003)
    assert "it has no operator with weights" in rows["onnxruntime", "int8_static"].reason
    for scheme in ("float32", "int8_static"):
        reason = rows["openvino", scheme].reason
        assert "operator TreeEnsembleClassifier (ai.onnx.ml) exists only in onnxruntime" in reason
    assert result.bundle == tmp_path / "out/digits-1.edgeml"


def test_without_a_name_the_bundle_is_called_by_the_objects_class(digits, tmp_path):
    from sklearn.linear_model import LogisticRegression

    features, labels = digits
    model = LogisticRegression(max_iter=5000).fit(features[:300], labels[:300])
    given = {"example_inputs": features[:1], "evaluation": (features[300:400], labels[300:400])}
    result = convert(model, **given, runtimes="onnxruntime", measure=False, output=tmp_path)
    assert result.bundle == tmp_path / "LogisticRegression-1.edgeml"
