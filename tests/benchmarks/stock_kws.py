"""What one would write without edgeml: quantize the KWS ONNX with each runtime's stock tool, evaluate on 500.

Usage: stock_kws.py DATA_FOLDER SCRATCH_FOLDER ONNX2TF_PYTHON
"""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np

logging.disable(logging.WARNING)
folder, scratch, worker = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with np.load(folder / "data.npz") as file:
    scale, zero_point = file["scale"], file["zero_point"]
    calibration = ((file["calib_q"].astype(np.float32) - zero_point) * scale).astype(np.float32)
    test = ((file["test_q"].astype(np.float32) - zero_point) * scale).astype(np.float32)
    labels = file["test_y"]
source = folder / "kws_float.onnx"
accuracy: dict[str, float] = {}


def score(name, predict) -> None:
    hits = sum(int(predict(test[place : place + 1]).argmax()) == labels[place] for place in range(len(test)))
    accuracy[name] = hits / len(test)


def onnxruntime() -> None:
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter(calibration)

        def get_next(self):
            sample = next(self.samples, None)
            return None if sample is None else {"input_1": sample[None]}

    quant_pre_process(str(source), str(scratch / "prepared.onnx"))
    quantize_static(
        str(scratch / "prepared.onnx"),
        str(scratch / "int8.onnx"),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    for name, path in (("float32", source), ("int8", scratch / "int8.onnx")):
        session = ort.InferenceSession(path)
        score(f"onnxruntime-{name}", lambda x, session=session: session.run(None, {"input_1": x})[0])


def openvino() -> None:
    import nncf
    import openvino as ov

    model = ov.convert_model(source)
    ov.save_model(model, scratch / "float.xml", compress_to_fp16=False)
    quantized = nncf.quantize(model, nncf.Dataset(calibration, lambda sample: sample[None]), subset_size=100)
    ov.save_model(quantized, scratch / "int8.xml", compress_to_fp16=False)
    for name in ("float", "int8"):
        compiled = ov.Core().compile_model(
            scratch / f"{name}.xml", "CPU", {"INFERENCE_PRECISION_HINT": ov.Type.f32}
        )
        score(f"openvino-{name}", lambda x, compiled=compiled: compiled(x)[0])


def litert() -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    (scratch / "copy.onnx").write_bytes(source.read_bytes())
    program = (
        "import onnx2tf; onnx2tf.convert(input_onnx_file_path='copy.onnx', output_folder_path='made', "
        "tflite_backend='flatbuffer_direct', keep_shape_absolutely_input_names=['input_1'], "
        "disable_model_save=False, non_verbose=True, overwrite_input_shape=['input_1:1,49,10,1'])"
    )
    subprocess.run([worker, "-c", program], cwd=scratch, check=True, capture_output=True)
    (path,) = (scratch / "made").glob("*_float32.tflite")
    tool = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
    key = next(iter(Interpreter(str(path)).get_signature_list()))
    name = Interpreter(str(path)).get_signature_list()[key]["inputs"][0]
    statistics = tool.calibrate({key: [{name: sample[None]} for sample in calibration]})
    (scratch / "int8.tflite").write_bytes(tool.quantize(statistics).quantized_model)
    for label, file in (("float32", path), ("int8", scratch / "int8.tflite")):
        score(f"litert-{label}", _predictor(Interpreter(str(file))))


def _predictor(interpreter):
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = given["quantization"]

    def predict(x):
        value = x if given["dtype"] == np.float32 else np.clip(np.rint(x / scale) + zero, -128, 127)
        interpreter.set_tensor(given["index"], value.astype(given["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    return predict


onnxruntime()
openvino()
litert()
sys.stdout.write(json.dumps(accuracy))
