"""Keras' part: a Keras model to OpenVINO IR through its OpenVINO backend, without TensorFlow.

Runs in the worker's interpreter and imports nothing of edgeml.
"""

from __future__ import annotations

import json
import os
import zipfile
from importlib import metadata
from pathlib import Path

os.environ["KERAS_BACKEND"] = "openvino"


class UnsafeError(Exception):
    """The file holds code."""


class RefusedError(Exception):
    """The model asks for what was not allowed, or cannot be converted as it is."""


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
    if request.get("samples"):
        run_samples(keras, model, inputs, outputs, request["samples"], request["source_outputs"])
    return {
        "inputs": export(keras, model, inputs, request["output"]),
        "outputs": outputs,
        "versions": {name: metadata.version(name) for name in ("keras", "openvino")},
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
        own = entry.get(key) or []
        given = wanted.get(entry.get("name")) or (wanted.get("") if len(entries) == 1 else None)
        if given is not None and len(given) == len(own):
            entry[key] = [side or size for side, size in zip(own, given, strict=True)]
        elif None in own[1:]:
            sides = ",".join(str(side or (224 if i else 1)) for i, side in enumerate(own))
            raise RefusedError(
                f"input {entry.get('name')!r} has free dimensions; give their sizes, for example: "
                f"--input-shape {entry.get('name')}={sides}"
            )
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


def unique(names: list) -> list:
    """Give names of which no two are the same."""
    taken: list = []
    for name in names:
        taken.append(name + "_1" * taken.count(name))
    return taken


def run_samples(keras, model, inputs: list, outputs: list, samples: str, output: str) -> None:
    """Run the source one sample at a time, as the artifact will be."""
    import numpy as np

    with np.load(samples, allow_pickle=False) as given:
        arrays = {name: given[name] for name in given.files}
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = {inputs[0]: next(iter(arrays.values()))}
    missing = [name for name in inputs if name not in arrays]
    if missing:
        raise RefusedError(f"the samples hold no {missing[0]!r}; they hold: {', '.join(arrays)}")
    rows: list = []
    for index in range(len(arrays[inputs[0]])):
        feed = {name: keras.ops.convert_to_tensor(arrays[name][index : index + 1]) for name in inputs}
        # called, not predict(): that one lets the engine choose its precision
        result = model(feed if len(feed) > 1 else feed[inputs[0]], training=False)
        flat = list(result) if isinstance(result, (list, tuple)) else [result]
        rows.append([keras.ops.convert_to_numpy(value) for value in flat])
    np.savez(
        output,
        **{
            name: np.concatenate(column)
            for name, column in zip(outputs, zip(*rows, strict=True), strict=True)
        },
    )
