"""PyTorch's part: an exported program (.pt2) to ONNX, TFLite and OpenVINO IR.

The program keeps its own input and output names. Runs in the worker's interpreter.
"""

from __future__ import annotations

import os

from edgeml_worker import RefusedError, run_samples, static_shapes, versions

OPSET = 18


def convert(request: dict) -> dict:
    """Do one job: the edge that the request names."""
    import torch

    torch.set_num_threads(1)
    if not request["trust_code"]:
        # PyTorch's own allow-list of what a pickle may name; it holds where weights_only=False is passed too
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    program = torch.export.load(request["source"])
    inputs, outputs = names(program)
    program, shapes, notes = static(torch, program, inputs, request["input_shapes"])
    module = program.module()
    run_samples(request, inputs, outputs, lambda arrays: run(torch, module, arrays))
    example = tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in shapes)
    output = request["output"]
    if request["target_format"] == "onnx":
        packages = write_onnx(torch, program, example, inputs, outputs, output)
    elif request["target_format"] == "tflite":
        packages = write_tflite(program, example, output)
    else:
        packages = write_openvino(program, example, inputs, outputs, output)
    return {"inputs": inputs, "outputs": outputs, "notes": notes, "versions": versions("torch", *packages)}


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
    own = {name: [side if isinstance(side, int) else None for side in values[name].shape] for name in inputs}
    sides, notes = static_shapes(own, wanted)
    shapes = [(sides[name], values[name].dtype) for name in inputs]
    if notes:
        example = tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in shapes)
        program = torch.export.export(program.module(), example)
    return program, shapes, notes


def run(torch, module, arrays: list) -> list:
    """Run one sample."""
    with torch.no_grad():
        return [value.numpy() for value in flat(torch, module(*(torch.from_numpy(a.copy()) for a in arrays)))]


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
