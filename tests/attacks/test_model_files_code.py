"""Model files with code in them are refused before any framework sees them, unless the user trusts them."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
from edgeml_converters.formats.safety import check
from edgeml_converters.steps.keras import STEPS as KERAS_STEPS
from edgeml_converters.steps.onnx import STEPS as ONNX_STEPS
from edgeml_converters.workers.catalogue import interpreter

from edgeml.converter import StepRequest
from edgeml.errors import EdgemlError, ModelFileError, UnsafeFileError

LAMBDA = {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "evil", "function": {}}}
CUSTOM = {"class_name": "Thing", "module": "os.path", "config": {"name": "thing"}}
WRITE_LAMBDA_H5 = """
import json, sys, h5py
layer = {"class_name": "Lambda", "config": {"name": "evil", "function": ["4wEAAAA=", None, None]}}
config = {"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}
with h5py.File(sys.argv[1], "w") as file:
    file.attrs["model_config"] = json.dumps(config)
    file.attrs["keras_version"] = "2.15.0"
"""


class Payload:
    """Unpickled, it would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.marker}",)


def keras_file(path: Path, *layers: dict[str, Any]) -> Path:
    config = {
        "class_name": "Sequential",
        "module": "keras",
        "config": {"name": "m", "layers": list(layers)},
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    return path


def pt2_file(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/models/model.json", "{}")
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def torch_zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", content)
    return buffer.getvalue()


def saved_model(folder: Path, operator: bytes) -> Path:
    node = b"\x0a\x01n\x12" + bytes([len(operator)]) + operator
    graph = b"\x0a" + bytes([len(node)]) + node
    meta = b"\x12" + bytes([len(graph)]) + graph
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12" + bytes([len(meta)]) + meta)
    return folder


@pytest.mark.parametrize(("layer", "complaint"), [(LAMBDA, "Lambda layer 'evil'"), (CUSTOM, "os.path.Thing")])
def test_a_keras_file_with_code_is_refused(tmp_path: Path, layer: dict[str, Any], complaint: str) -> None:
    model = keras_file(tmp_path / "m.keras", layer)
    with pytest.raises(UnsafeFileError, match=complaint) as caught:
        check(model, "keras", trust_code=False)
    assert "--trust-code" in str(caught.value)


def test_a_lambda_inside_another_layer_is_found(tmp_path: Path) -> None:
    wrapped = {"class_name": "TimeDistributed", "module": "keras.layers", "config": {"layer": LAMBDA}}
    with pytest.raises(UnsafeFileError, match="Lambda"):
        check(keras_file(tmp_path / "m.keras", wrapped), "keras", trust_code=False)


def test_a_trusted_file_passes(tmp_path: Path) -> None:
    check(keras_file(tmp_path / "m.keras", LAMBDA), "keras", trust_code=True)


def test_a_plain_keras_file_passes(tmp_path: Path) -> None:
    dense = {"class_name": "Dense", "module": "keras.layers", "config": {"name": "dense", "units": 2}}
    check(keras_file(tmp_path / "m.keras", dense), "keras", trust_code=False)


def test_every_keras_step_refuses_code(tmp_path: Path) -> None:
    model = keras_file(tmp_path / "m.keras", LAMBDA)
    output = tmp_path / "out"
    output.mkdir()
    for step in KERAS_STEPS:
        with pytest.raises(UnsafeFileError):
            step.run(StepRequest(model, output))
        assert list(output.iterdir()) == []


@pytest.mark.worker("keras")
def test_a_lambda_in_an_h5_file_is_refused_in_the_worker_before_loading(tmp_path: Path) -> None:
    model, output = tmp_path / "m.h5", tmp_path / "out"
    output.mkdir()
    subprocess.run([interpreter("keras"), "-c", WRITE_LAMBDA_H5, model], check=True)
    step = next(step for step in KERAS_STEPS if step.name == "keras-to-openvino")
    with pytest.raises(UnsafeFileError, match="Lambda layer 'evil'") as caught:
        step.run(StepRequest(model, output))
    assert "--trust-code" in str(caught.value)


@pytest.mark.parametrize(
    "operator", [b"PyFunc", b"EagerPyFunc", b"PyFuncStateless", b"WriteFile", b"ReadFile"]
)
def test_a_saved_model_that_calls_python_or_touches_files_is_refused(tmp_path: Path, operator: bytes) -> None:
    model = saved_model(tmp_path / "model", operator)
    with pytest.raises(UnsafeFileError, match=operator.decode()):
        check(model, "savedmodel", trust_code=False)
    check(model, "savedmodel", trust_code=True)


def test_a_saved_model_of_plain_operators_passes(tmp_path: Path) -> None:
    check(saved_model(tmp_path / "model", b"MatMul"), "savedmodel", trust_code=False)


@pytest.mark.data
def test_the_real_saved_model_passes(data_dir: Path) -> None:
    check(data_dir / "kws" / "kws_ref_model", "savedmodel", trust_code=False)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["m/data/constants/c_0", "m/data/sample_inputs/model.pt"])
def test_a_pickle_that_calls_something_is_refused_and_not_run(
    tmp_path: Path, protocol: int, place: str
) -> None:
    marker = tmp_path / "was-run"
    evil = pickle.dumps(Payload(marker), protocol)
    model = pt2_file(tmp_path / "m.pt2", {place: torch_zip(evil)})
    with pytest.raises(UnsafeFileError, match=r"calls (posix|nt)\.system"):
        check(model, "pt2", trust_code=False)
    assert not marker.exists()


def test_a_bare_pickle_in_a_program_is_read_too(tmp_path: Path) -> None:
    evil = pickle.dumps(Payload(tmp_path / "was-run"), 2)
    model = pt2_file(tmp_path / "m.pt2", {"m/data/constants/c_0": evil})
    with pytest.raises(UnsafeFileError, match="system"):
        check(model, "pt2", trust_code=False)


MEMO_TRICK = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93."
"""Takes ``os`` and ``system`` from its memo before it joins them."""


def test_a_pickle_that_hides_what_it_calls_is_refused(tmp_path: Path) -> None:
    model = pt2_file(tmp_path / "m.pt2", {"m/data/constants/c_0": torch_zip(MEMO_TRICK)})
    with pytest.raises(UnsafeFileError, match=r"\?\.\?"):
        check(model, "pt2", trust_code=False)


def test_a_program_with_tensors_only_passes(tmp_path: Path) -> None:
    tensors = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n."
    members = {"m/data/sample_inputs/model.pt": torch_zip(tensors), "m/data/constants/c_0": bytes(range(256))}
    check(pt2_file(tmp_path / "m.pt2", members), "pt2", trust_code=False)


@pytest.mark.parametrize("name", ["m/extra/code.py", "m/data/aotinductor/model.so"])
def test_a_program_that_carries_code_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeFileError, match="code"):
        check(pt2_file(tmp_path / "m.pt2", {name: b"\x7fELF"}), "pt2", trust_code=False)


def test_a_pickle_that_unpacks_to_more_than_it_should_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "m.pt2"
    with zipfile.ZipFile(model, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/data/constants/c_0", bytes(80 * 1024 * 1024))
    with pytest.raises(EdgemlError):
        check(model, "pt2", trust_code=False)


def external(folder: Path, location: str) -> Path:
    weights = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        weights.external_data.add(key=key, value=value)
    port = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [port("x", 1, [4])],
        [port("y", 1, [4])],
        [weights],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["outside", "absolute", "link"])
def test_weights_outside_the_models_folder_are_never_read(tmp_path: Path, kind: str) -> None:
    secret, folder, output = tmp_path / "secret", tmp_path / "model", tmp_path / "out"
    secret.write_bytes(bytes(16))
    folder.mkdir()
    output.mkdir()
    location = {"outside": "../secret", "absolute": str(secret), "link": "weights"}[kind]
    if kind == "link":
        (folder / "weights").symlink_to(secret)
    model = external(folder, location)
    for step in ONNX_STEPS:
        with pytest.raises(UnsafeFileError, match="outside its folder"):
            step.run(StepRequest(model, output))
    assert list(output.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "name"), [("torch.utils.collect_env", "run"), ("numpy", "load"), ("collections", "namedtuple")]
)
@pytest.mark.parametrize(
    "place", ["m/data/sample_inputs/model.pt", "m/data/weights/weight_0", "m/extra/readme.txt"]
)
def test_a_pickle_may_name_only_what_tensors_need(tmp_path: Path, module: str, name: str, place: str) -> None:
    evil = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x02\x00\x00\x00id\x85R."
    with pytest.raises(UnsafeFileError, match=f"{module}.{name}"):
        check(pt2_file(tmp_path / "m.pt2", {place: torch_zip(evil)}), "pt2", trust_code=False)


def test_a_second_pickle_behind_a_first_is_read(tmp_path: Path) -> None:
    evil = pickle.dumps(1, 2) + pickle.dumps(Payload(tmp_path / "was-run"), 2)
    with pytest.raises(UnsafeFileError, match="system"):
        check(pt2_file(tmp_path / "m.pt2", {"m/data/sample_inputs/model.pt": evil}), "pt2", trust_code=False)


def test_numbers_that_begin_as_a_pickle_does_pass(tmp_path: Path) -> None:
    check(
        pt2_file(tmp_path / "m.pt2", {"m/data/weights/weight_0": b"\x80\xff\x01" * 9}),
        "pt2",
        trust_code=False,
    )


@pytest.mark.parametrize(
    ("graph", "complaint"),
    [
        ({"as_expr": {"expr_str": "__import__('os').system('id')"}}, "no arithmetic"),
        ({"as_expr": {"expr_str": "eval(s0)"}}, "no arithmetic"),
        ({"target": "torch.utils.collect_env.run", "inputs": []}, "a call of torch.utils"),
        ({"path_name": "opaque_obj_0", "use_pickle": True}, "no tensor"),
    ],
)
def test_a_program_whose_graph_would_run_python_is_refused(
    tmp_path: Path, graph: dict[str, Any], complaint: str
) -> None:
    model = pt2_file(tmp_path / "m.pt2", {"m/models/other.json": json.dumps(graph).encode()})
    with pytest.raises(UnsafeFileError, match=complaint):
        check(model, "pt2", trust_code=False)


def test_a_program_with_free_sizes_passes(tmp_path: Path) -> None:
    graph = [
        {"expr_str": "((2*s0 - 1)//2) + Max(1, u0)"},
        {"expr_str": "Mul(Integer(2), Symbol('s39', positive=True), Float('1.5', precision=9))"},
        {"target": "torch.ops.aten.linear.default", "inputs": []},
    ]
    check(
        pt2_file(tmp_path / "m.pt2", {"m/models/other.json": json.dumps(graph).encode()}),
        "pt2",
        trust_code=False,
    )


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + len(content).to_bytes(1, "little") + content


def saved_function(folder: Path, function: str, node: bytes, attributes: bytes = b"") -> Path:
    call = field(1, b"n") + field(2, node) + (field(5, attributes) if attributes else b"")
    library = field(1, field(1, field(1, function.encode())) + field(3, call))
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(field(2, field(2, field(2, library))))
    return folder


@pytest.mark.parametrize(
    "operator",
    [
        *("SaveV2", "RestoreV2", "MergeV2Checkpoints", "WriteScalarSummary", "CreateSummaryFileWriter"),
        *("TFRecordReaderV2", "CSVDatasetV2", "InitializeTableFromTextFileV2", "DebugIdentityV2", "PyFunc"),
    ],
)
def test_a_function_in_a_saved_model_that_touches_files_is_refused(tmp_path: Path, operator: str) -> None:
    model = saved_function(tmp_path / "model", "__inference_serve_1", operator.encode())
    with pytest.raises(UnsafeFileError, match=operator):
        check(model, "savedmodel", trust_code=False)


def test_a_saved_model_may_print_but_not_into_a_file(tmp_path: Path) -> None:
    stream = field(1, b"output_stream") + field(2, field(2, b"file:///tmp/x"))
    with pytest.raises(UnsafeFileError, match="PrintV2"):
        check(saved_function(tmp_path / "a", "f", b"PrintV2", stream), "savedmodel", trust_code=False)
    check(
        saved_function(tmp_path / "b", "f", b"PrintV2", stream.replace(b"file:///tmp/x", b"stderr       ")),
        "savedmodel",
        trust_code=False,
    )


def test_a_saved_models_own_saver_passes(tmp_path: Path) -> None:
    model = saved_function(tmp_path / "model", "__inference__traced_save_9", b"SaveV2")
    check(model, "savedmodel", trust_code=False)


HDF5 = b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0" + bytes(24) + (2048).to_bytes(8, "little") + bytes(2000)
"""A file of HDF5's first version that says how long it is."""


def test_a_keras_file_under_the_other_way_of_savings_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_bytes(HDF5)
    with pytest.raises(ModelFileError, match=r"rename it to m\.h5"):
        check(tmp_path / "m.keras", "keras", trust_code=False)
    with pytest.raises(ModelFileError, match=r"rename it to m\.keras"):
        check(keras_file(tmp_path / "m.h5", LAMBDA), "keras", trust_code=True)
