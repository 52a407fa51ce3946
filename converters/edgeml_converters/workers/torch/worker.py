"""PyTorch's part: an exported program (.pt2) to ONNX, TFLite and OpenVINO IR.

The program keeps its own input and output names. Runs in the worker's interpreter and imports nothing
of edgeml.
"""

from __future__ import annotations

from importlib import metadata

OPSET = 18


class RefusedError(Exception):
    """The program cannot be converted as it is."""


def convert(request: dict) -> dict:
    """Do one job: the edge that the request names."""
    import torch

    torch.set_num_threads(1)
    program = torch.export.load(request["source"])
    inputs, outputs = names(program)
    program, shapes, notes = static(torch, program, inputs, request["input_shapes"])
    if request.get("samples"):
        run_samples(torch, program, inputs, outputs, request["samples"], request["source_outputs"])
    example = tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in shapes)
    output = request["output"]
    if request["target_format"] == "onnx":
        packages = write_onnx(torch, program, example, inputs, outputs, output)
    elif request["target_format"] == "tflite":
        packages = write_tflite(program, example, output)
    else:
        packages = write_openvino(program, example, inputs, outputs, output)
    versions = {name: metadata.version(name) for name in ("torch", *packages)}
    return {"inputs": inputs, "outputs": outputs, "notes": notes, "versions": versions}


def names(program) -> tuple:
    """Give the names of the program's inputs and outputs."""
    signature = program.graph_signature
    inputs, outputs = list(signature.user_inputs), list(signature.user_outputs)
    if not all(isinstance(name, str) for name in inputs + outputs):
        raise RefusedError(
            "the program has constants among its inputs or outputs; export it with tensors only"
        )
    return inputs, outputs


def static(torch, program, inputs: list, wanted: dict):
    """Give the program with static shapes, the shapes with their dtypes, and what was fixed."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    for name in wanted:
        if name not in inputs and not (name == "" and len(inputs) == 1):
            raise RefusedError(f"a shape for {name!r} was given, but the inputs are: {', '.join(inputs)}")
    shapes, notes = [], []
    for name in inputs:
        value = values[name]
        own = [side if isinstance(side, int) else None for side in value.shape]
        given = wanted.get(name) or (wanted.get("") if len(inputs) == 1 else None)
        shapes.append((fixed(name, own, given), value.dtype))
        if None in own:
            notes.append(f"input {name}: shape fixed to {shapes[-1][0]}")
    if notes:
        example = tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in shapes)
        program = torch.export.export(program.module(), example)
    return program, shapes, notes


def fixed(name: str, own: list, given) -> list:
    """Give the sides of an input, the batch 1 unless asked otherwise."""
    if given is not None:
        if len(given) != len(own) or any(o is not None and o != g for o, g in zip(own, given, strict=True)):
            raise RefusedError(
                f"input {name!r} has the shape {own}, which cannot be made {given}; correct --input-shape"
            )
        own = given
    sides = [1 if position == 0 and side is None else side for position, side in enumerate(own)]
    if None in sides:
        example = ",".join("224" if side is None else str(side) for side in sides)
        raise RefusedError(
            f"input {name!r} has free dimensions; give their sizes, for example: "
            f"--input-shape {name}={example}"
        )
    return sides


def run_samples(torch, program, inputs: list, outputs: list, samples: str, output: str) -> None:
    """Run the source one sample at a time, as the artifact will be."""
    import numpy as np

    with np.load(samples, allow_pickle=False) as given:
        arrays = {name: given[name] for name in given.files}
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = {inputs[0]: next(iter(arrays.values()))}
    missing = [name for name in inputs if name not in arrays]
    if missing:
        raise RefusedError(f"the samples hold no {missing[0]!r}; they hold: {', '.join(arrays)}")
    module, rows = program.module(), []
    for index in range(len(arrays[inputs[0]])):
        feed = [torch.from_numpy(arrays[name][index : index + 1].copy()) for name in inputs]
        with torch.no_grad():
            rows.append([value.numpy() for value in flat(torch, module(*feed))])
    np.savez(
        output,
        **{
            name: np.concatenate(column)
            for name, column in zip(outputs, zip(*rows, strict=True), strict=True)
        },
    )


def flat(torch, result) -> list:
    """Give the tensors of a nested result."""
    if isinstance(result, torch.Tensor):
        return [result]
    values = result.values() if isinstance(result, dict) else result
    return [tensor for value in values for tensor in flat(torch, value)]


def write_onnx(torch, program, example, inputs, outputs, output: str) -> tuple:
    """Write one ONNX file."""
    made = torch.onnx.export(
        program, args=example, input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=True
    )
    made.save(output, external_data=False)
    return ("onnx", "onnxscript")


def write_tflite(program, example, output: str) -> tuple:
    """Write TFLite; the caller names its tensors."""
    import litert_torch

    litert_torch.convert(program.module(), example).export(output)
    return ("litert-torch",)


def write_openvino(program, example, inputs, outputs, output: str) -> tuple:
    """Write static IR with float32 weights."""
    import openvino

    model = openvino.convert_model(program, example_input=example)
    for port, name in zip(model.inputs, inputs, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    model.reshape({name: list(tensor.shape) for name, tensor in zip(inputs, example, strict=True)})
    openvino.save_model(model, output, compress_to_fp16=False)
    return ("openvino",)
