"""Keras' part: a Keras model to OpenVINO IR through its OpenVINO backend, without TensorFlow.

Runs in the worker's interpreter.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

from edgeml_worker import RefusedError, given_shape, layers, refuse_code, run_samples, static_shape, versions

os.environ["KERAS_BACKEND"] = "openvino"


def convert(request: dict) -> dict:
    """Do one job: the edge that the request names."""
    source = Path(request["source"])
    if source.suffix == ".keras":
        fix_shapes(source, request["input_shapes"])
    else:
        refuse_code(source, trust_code=request["trust_code"])
    import keras

    model = keras.models.load_model(
        source,
        compile=False,
        safe_mode=not request["trust_code"],
        custom_objects={"DepthwiseConv2D": depthwise(keras)},
    )
    inputs = [tensor.name for tensor in model.inputs]
    outputs = unique(
        list(getattr(model, "output_names", None) or [f"output_{i}" for i in range(len(model.outputs))])
    )

    def run(arrays):
        feed = [keras.ops.convert_to_tensor(array) for array in arrays]
        # called, not predict(): that one lets the engine choose its precision
        result = model(dict(zip(inputs, feed, strict=True)) if len(feed) > 1 else feed[0], training=False)
        flat = list(result) if isinstance(result, (list, tuple)) else [result]
        return [keras.ops.convert_to_numpy(value) for value in flat]

    run_samples(request, inputs, outputs, run)
    return {
        "inputs": export(keras, model, inputs, request["output"]),
        "outputs": outputs,
        "versions": versions("keras", "openvino"),
    }


def export(keras, model, inputs: list, output: str) -> list:
    """Write IR and give its inputs' names in its order."""
    if len(inputs) == 1:
        model.export(output, format="openvino", verbose=False)
        return inputs
    # a list of inputs would be spread over the parameters of call(); a dictionary is taken in sorted order
    specs = {
        name: keras.layers.InputSpec(dtype=tensor.dtype, shape=tensor.shape, name=name)
        for name, tensor in zip(inputs, model.inputs, strict=True)
    }
    model.export(output, format="openvino", verbose=False, input_signature=specs)
    return sorted(inputs)


def fix_shapes(source: Path, wanted: dict) -> None:
    """Write the given sizes into the file, a copy: this backend builds layers with known sizes only."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    entries = [node["config"] for node in layers(config) if node["class_name"] == "InputLayer"]
    for entry in entries:
        key = "batch_shape" if "batch_shape" in entry else "batch_input_shape"
        own = entry.get(key)
        if not own:
            continue
        given = given_shape(entry.get("name"), wanted, len(entries))
        sides = static_shape(entry.get("name"), own, given)
        entry[key] = sides if given else [*own[:1], *sides[1:]]
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(source, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def depthwise(keras):
    """Give a layer class for models of Keras 2."""

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
        """Reads what Keras 2 wrote, which names a group count that has one meaning only."""

        def __init__(self, *args, groups=1, **keywords):
            if groups != 1:
                raise RefusedError(f"DepthwiseConv2D with groups={groups} cannot be read by Keras 3")
            super().__init__(*args, **keywords)

    return DepthwiseConv2D


def unique(names: list) -> list:
    """Give names of which no two are the same."""
    taken: list = []
    for name in names:
        taken.append(name + "_1" * taken.count(name))
    return taken
