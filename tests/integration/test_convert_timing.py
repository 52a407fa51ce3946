"""Measuring goes through fresh processes; a file that cannot be measured does not stop the others."""

import pytest
from edgeml_converters.evaluate.latency import Job, measure

from edgeml.errors import MeasureError, UsageError
from edgeml.measure import Measurement

pytestmark = pytest.mark.data


def test_each_file_is_measured_and_a_broken_one_has_its_own_error(data_dir, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes((data_dir / "kws/kws_float.tflite").read_bytes()[:50_000])
    found = measure(
        [
            Job("good", "litert", data_dir / "kws/kws_float.tflite", {}),
            Job("broken", "litert", broken, {}),
            Job("other", "onnxruntime", data_dir / "kws/kws_float.onnx", {}),
        ],
        progress=lambda _: None,
    )
    assert isinstance(found["broken"], MeasureError)
    for name, runtime in (("good", "litert"), ("other", "onnxruntime")):
        result = found[name]
        assert isinstance(result, Measurement), result
        assert result.runtime == runtime
        assert 0 < result.latency_ms.p50 <= result.latency_ms.p99
        assert result.threads == 1


def test_an_unknown_option_is_a_usage_error(data_dir):
    job = Job("basic", "onnxruntime", data_dir / "kws/kws_float.onnx", {"nonsense": "1"})
    with pytest.raises(UsageError, match="nonsense"):
        measure([job], progress=lambda _: None)
