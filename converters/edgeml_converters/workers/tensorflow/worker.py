"""TensorFlow's part: SavedModel and Keras to TFLite and ONNX, TFLite to ONNX.

Every source becomes one function of named tensors with static shapes; it is run on the samples and
converted. Runs in the worker's interpreter and imports nothing of edgeml.
"""

from __future__ import annotations

import json
import os
import tempfile
from importlib import metadata
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # SavedModels of Keras 2 do not load without it
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

OPSET = 17


class UnsafeError(Exception):
    """The file holds code."""


class RefusedError(Exception):
    """The model asks for what was not allowed, or cannot be converted as it is."""


def convert(request: dict) -> dict:
    """Do one job: the edge that the request names."""
    source, target = Path(request["source"]), request["target_format"]
    if request["source_format"] == "tflite":
        return tflite_to_onnx(source, Path(request["output"]))
    import tensorflow as tf

    function, inputs, keep = load(tf, source, request)
    specs = [
        tf.TensorSpec(static_shape(name, shape, request["input_shapes"], len(inputs)), dtype, name)
        for name, shape, dtype in inputs
    ]
    names = [spec.name for spec in specs]

    @tf.function(input_signature=specs, autograph=False)
    def model(*tensors):
        return function(dict(zip(names, tensors, strict=True)))

    model.get_concrete_function()
    if request.get("samples"):
        run_samples(model, names, request["samples"], request["source_outputs"])
    output = Path(request["output"])
    if target == "tflite":
        write_tflite(tf, model, keep, output)
    else:
        write_onnx(model, specs, output)
    packages = ("tensorflow-cpu", "tensorflow", "tf-keras") + (("tf2onnx",) if target == "onnx" else ())
    return {"inputs": names, "versions": versions(*packages), "notes": shape_notes(inputs, specs)}


def load(tf, source: Path, request: dict):
    """Give (function of a dict of tensors to one, [(name, shape, dtype)], object that holds the weights)."""
    if source.is_dir():
        return load_saved_model(tf, source)
    model = load_keras(source, trust_code=request["trust_code"])
    inputs, taken = [], set()
    for position, tensor in enumerate(model.inputs):
        name = safe_name(tensor.name, f"input_{position}", taken)
        inputs.append((name, tuple(tensor.shape), tf.as_dtype(tensor.dtype)))
    outputs = (
        [safe_name(name, f"output_{i}", taken) for i, name in enumerate(model.output_names)]
        if hasattr(model, "output_names")
        else [f"output_{i}" for i in range(len(model.outputs))]
    )

    def function(feed):
        values = [feed[name] for name, _, _ in inputs]
        result = model(values[0] if len(values) == 1 else values, training=False)
        flat = tf.nest.flatten(result)
        return dict(zip(outputs, flat, strict=True))

    return function, inputs, model


def load_saved_model(tf, source: Path):
    """Give what ``load`` gives, for the serving signature."""
    import tf_keras  # noqa: F401 - registers what SavedModels of Keras 2 refer to

    loaded = tf.saved_model.load(str(source))
    if not loaded.signatures:
        raise RefusedError(
            "the SavedModel has no signature; save it with tf.saved_model.save(model, path, signatures=…)"
        )
    keys = list(loaded.signatures)
    key = "serving_default" if "serving_default" in keys else keys[0]
    signature = loaded.signatures[key]
    _, keywords = signature.structured_input_signature
    inputs = [
        (name, tuple(spec.shape) if spec.shape.rank is not None else None, spec.dtype)
        for name, spec in sorted(keywords.items())
    ]
    return (lambda feed: signature(**feed)), inputs, loaded


def load_keras(source: Path, *, trust_code: bool):
    """Load with the Keras that wrote the file."""
    if source.suffix == ".keras":
        import keras

        return keras.models.load_model(source, compile=False, safe_mode=not trust_code)
    refuse_code(source, trust_code=trust_code)
    import tf_keras

    return tf_keras.models.load_model(source, compile=False)


def refuse_code(source: Path, *, trust_code: bool) -> None:
    """Refuse an .h5 file with Python code in it before anything could run it."""
    import h5py

    with h5py.File(source, "r") as file:
        text = file.attrs.get("model_config")
    if text is None:
        raise RefusedError(
            f"{source.name} holds weights only, no model; save the whole model with model.save(…)"
        )
    config = json.loads(text.decode() if isinstance(text, bytes) else text)
    for layer in layers(config):
        if layer.get("class_name") == "Lambda" and not trust_code:
            name = (layer.get("config") or {}).get("name", "?")
            raise UnsafeError(
                f"{source.name} holds Python code (Lambda layer {name!r}) that would run when it is loaded; "
                f"if you trust whoever made the file, add --trust-code"
            )


def layers(node):
    """Walk every layer of a model's configuration."""
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        for value in node.values():
            yield from layers(value)
    elif isinstance(node, list):
        for value in node:
            yield from layers(value)


def safe_name(name: str, default: str, taken: set) -> str:
    """Give a name that no other tensor has, without TensorFlow's suffixes."""
    name = name.partition(":")[0].partition("/")[0] or default
    while name in taken:
        name += "_1"
    taken.add(name)
    return name


def static_shape(name: str, shape, wanted: dict, count: int) -> list:
    """Give the sides of an input, the batch 1 unless asked otherwise."""
    given = wanted.get(name) or (wanted.get("") if count == 1 else None)
    if given is not None:
        if shape is not None and (
            len(given) != len(shape)
            or any(o is not None and o != g for o, g in zip(shape, given, strict=True))
        ):
            raise RefusedError(
                f"input {name!r} has the shape {shape}, which cannot be made {tuple(given)}; "
                f"correct --input-shape"
            )
        shape = given
    if shape is None:
        raise RefusedError(f"input {name!r} has no known shape; give it: --input-shape {name}=1,224,224,3")
    sides = [1 if position == 0 and side is None else side for position, side in enumerate(shape)]
    if None in sides:
        example = ",".join("224" if side is None else str(side) for side in sides)
        raise RefusedError(
            f"input {name!r} has the free dimensions {shape}; give their sizes, for example: "
            f"--input-shape {name}={example}"
        )
    return sides


def shape_notes(inputs, specs) -> list:
    """Say which shapes were fixed."""
    return [
        f"input {name}: shape fixed to {list(spec.shape)}"
        for (name, shape, _), spec in zip(inputs, specs, strict=True)
        if shape is None or None in shape
    ]


def run_samples(model, names: list, samples: str, output: str) -> None:
    """Run the source one sample at a time, as the artifact will be."""
    import numpy as np

    with np.load(samples, allow_pickle=False) as given:
        arrays = {name: given[name] for name in given.files}
    if len(names) == 1 and len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise RefusedError(f"the samples hold no {missing[0]!r}; they hold: {', '.join(arrays)}")
    count = len(arrays[names[0]])
    rows: list = []
    for index in range(count):
        result = model(*(arrays[name][index : index + 1] for name in names))
        rows.append({key: value.numpy() for key, value in result.items()})
    np.savez(output, **{key: np.concatenate([row[key] for row in rows]) for key in rows[0]})


def write_tflite(tf, model, keep, output: Path) -> None:
    """Convert to float32 TFLite with a signature."""
    with tempfile.TemporaryDirectory() as scratch:
        module = tf.Module()
        module.keep, module.model = keep, model
        # Keras 3 hides its variables from tf.Module; untracked, they would be saved without their values
        module.weights = [getattr(one, "value", one) for one in getattr(keep, "variables", [])]
        module.weights = [one for one in module.weights if isinstance(one, tf.Variable)]
        tf.saved_model.save(module, scratch, signatures={"serving_default": model.get_concrete_function()})
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=["serving_default"])
        output.write_bytes(converter.convert())


def write_onnx(model, specs, output: Path) -> None:
    """Convert to ONNX."""
    import tf2onnx

    tf2onnx.convert.from_function(model, input_signature=specs, opset=OPSET, output_path=str(output))


def tflite_to_onnx(source: Path, output: Path) -> dict:
    """Convert a TFLite file to ONNX."""
    import tf2onnx

    tf2onnx.convert.from_tflite(str(source), opset=OPSET, output_path=str(output))
    return {"versions": versions("tensorflow-cpu", "tensorflow", "tf2onnx")}


def versions(*names: str) -> dict:
    """Give the versions of those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
