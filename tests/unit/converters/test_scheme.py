"""Which scheme a file's numbers are in is read from the file, or said to be unknown."""

import sys

import pytest
from edgeml_converters.formats.scheme import state_of

from edgeml.errors import EngineMissingError
from edgeml.testing.models import make_double


@pytest.mark.parametrize(
    ("runtime", "module", "state"),
    [("onnxruntime", "onnx", "onnx/float32"), ("litert", "ai_edge_litert", "tflite/float32")],
)
def test_without_what_reads_a_format_no_model_passes_for_float(runtime, module, state, tmp_path, monkeypatch):
    path = make_double(tmp_path, runtime)
    assert str(state_of(path)) == state
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineMissingError, match="cannot tell whether it is quantized without"):
        state_of(path)
