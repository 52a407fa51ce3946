"""TensorFlow's part: SavedModel and Keras to TFLite and ONNX, TFLite to ONNX.

Every source becomes one function of named tensors with static shapes; it is run on the samples and
converted. Runs in the worker's interpreter.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from edgeml_worker import RefusedError, refuse_code, run_samples, static_shapes, versions

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # SavedModels of Keras 2 do not load without it
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

OPSET = 17
FOLDED = re.compile(r"const_fold_opt__\d+")


def convert(request: dict) -> dict:
    """Do one job: the edge that the request names."""
    source, target = Path(request["source"]), request["target_format"]
    if request["source_format"] == "tflite":
        return tflite_to_onnx(source, Path(request["output"]))
    import tensorflow as tf

    function, inputs, keep = load(tf, source, request)
    shapes, notes = static_shapes({name: shape for name, shape, _ in inputs}, request["input_shapes"])
    specs = [tf.TensorSpec(shapes[name], dtype, name) for name, _, dtype in inputs]
    names = [spec.name for spec in specs]

    @tf.function(input_signature=specs, autograph=False)
    def model(*tensors):
        return function(dict(zip(names, tensors, strict=True)))

    outputs = list(model.get_concrete_function().structured_outputs)
    run_samples(request, names, outputs, lambda arrays: run(model, outputs, arrays))
    output = Path(request["output"])
    if target == "tflite":
        write_tflite(tf, model, keep, output)
    else:
        write_onnx(model, specs, output)
    packages = ("tensorflow-cpu", "tensorflow", "tf-keras") + (("tf2onnx",) if target == "onnx" else ())
    return {"inputs": names, "versions": versions(*packages), "notes": notes}


def run(model, outputs: list, arrays: list) -> list:
    """Run one sample."""
    result = model(*arrays)
    return [result[name].numpy() for name in outputs]


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


def safe_name(name: str, default: str, taken: set) -> str:
    """Give a name that no other tensor has, without TensorFlow's suffixes."""
    name = name.partition(":")[0].partition("/")[0] or default
    while name in taken:
        name += "_1"
    taken.add(name)
    return name


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

    made, _ = tf2onnx.convert.from_function(model, input_signature=specs, opset=OPSET)
    name_by_place(made.graph)
    output.write_bytes(made.SerializeToString())


def tflite_to_onnx(source: Path, output: Path) -> dict:
    """Convert a TFLite file to ONNX."""
    import tf2onnx

    made, _ = tf2onnx.convert.from_tflite(str(source), opset=OPSET)
    name_by_place(made.graph)
    output.write_bytes(made.SerializeToString())
    return {"versions": versions("tensorflow-cpu", "tensorflow", "tf2onnx")}


def name_by_place(graph) -> None:
    """Name and order constants by who reads them first: tf2onnx numbers them as a set of objects comes."""
    graphs = list(all_graphs(graph))
    nodes = [node for one in graphs for node in one.node]
    read = dict.fromkeys(name for node in nodes for name in node.input)
    given = {output.name for one in graphs for output in one.output}
    folded = {one.name for one in graph.initializer if FOLDED.fullmatch(one.name)} - given
    names = {name: f"const_fold_at_{place}" if name in folded else name for place, name in enumerate(read)}
    for node in nodes:
        node.input[:] = [names[name] for name in node.input]
    for one in graph.initializer:
        one.name = names.get(one.name, one.name)
    order = {name: place for place, name in enumerate(names.values())}
    graph.initializer.sort(key=lambda one: order.get(one.name, len(order)))


def all_graphs(graph):
    """Give a graph and those inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_graphs(inner)
