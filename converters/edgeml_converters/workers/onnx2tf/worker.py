"""onnx2tf's part: ONNX to float32 TFLite without TensorFlow, the layout of every input kept.

Gets a copy of the model, because the tool writes to the file that it is given. Runs in the
worker's interpreter.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from edgeml_worker import versions


def convert(request: dict) -> dict:
    """Do one job."""
    with tempfile.TemporaryDirectory() as scratch:
        model, made = Path(scratch, "model.onnx"), Path(scratch, "made")
        shutil.copyfile(request["source"], model)
        import onnx2tf

        onnx2tf.convert(
            input_onnx_file_path=str(model),
            output_folder_path=str(made),
            tflite_backend="flatbuffer_direct",
            keep_shape_absolutely_input_names=request["inputs"],
            disable_model_save=False,
            non_verbose=True,
        )
        found = sorted(made.glob("*_float32.tflite"))
        if len(found) != 1:
            names = ", ".join(sorted(item.name for item in made.glob("*.tflite"))) or "nothing"
            raise RuntimeError(f"onnx2tf made {names} instead of one float32 TFLite file")
        shutil.move(found[0], request["output"])
    return {"versions": versions("onnx2tf", "onnx", "ai-edge-litert")}
