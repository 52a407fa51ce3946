"""Bundles and release folders for tests: the digits with golden samples, and models of known arithmetic."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import edgeml
from edgeml.bundle import open_bundle, write_bundle
from edgeml.installed import Installation, InstalledModel, needed_files, write_installation
from edgeml.manifest import FileEntry, Manifest, Tolerance, Variant
from edgeml.manifest_json import dumps
from edgeml.targets import host
from edgeml.tensors import TensorSpec
from edgeml.words import RuntimeName
from tests.conftest import REPOSITORY

DIGITS = REPOSITORY / "examples" / "digits"
FILES = {"litert": "digits.tflite", "onnxruntime": "digits.onnx"}
GOLDEN = 6
INPUTS = (TensorSpec("picture", (1, 8, 8, 1), "float32"),)
OUTPUTS = (TensorSpec("scores", (1, 10), "float32"),)


def digits(folder: Path, release: int = 1, **changes: Any) -> Path:
    """Write the digits as a bundle of two variants with golden samples; ``changes`` are the manifest's."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    samples = [random.random((1, 8, 8, 1), np.float32) * 16 for _ in range(GOLDEN)]
    np.savez(folder / "inputs.npz", picture=np.concatenate(samples))
    files = {"golden/inputs.npz": folder / "inputs.npz", "labels.txt": DIGITS / "labels.txt"}
    variants = []
    for runtime, file in FILES.items():
        name = f"{runtime}-float32"
        with edgeml.load(DIGITS / file) as model:
            made = np.concatenate([model(sample) for sample in samples])
        np.savez(folder / f"{name}.npz", scores=made)
        files |= {f"golden/{name}.npz": folder / f"{name}.npz", f"variants/{name}/{file}": DIGITS / file}
        variants.append(
            Variant(
                name,
                runtime,
                "float32",
                (FileEntry(f"variants/{name}/{file}", 0, ""),),
                (host().name,),
                golden=FileEntry(f"golden/{name}.npz", 0, ""),
                tolerance=Tolerance(1e-3, 0.999, 0.5),
            )
        )
    manifest = Manifest("digits", release, INPUTS, OUTPUTS, tuple(variants), ())
    manifest = replace(manifest, labels="labels.txt", golden_inputs="golden/inputs.npz")
    path = folder / f"digits-{release}.edgeml"
    write_bundle(path, replace(manifest, **changes), files)
    return path


def times(folder: Path, factor: float, release: int, names: str = "xy") -> Path:
    """Write ``y[1, 16] = factor · x[1, 16]`` as a bundle for ONNX Runtime; ``names`` are the tensors'."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in names)
    node = helper.make_node("Mul", [names[0], "constant"], [names[1]])
    return _onnx_bundle(folder, "times", release, node, x, y, np.array([factor], np.float32))


def looked_up(folder: Path, release: int) -> Path:
    """Write ``y[1] = [10, 20][x[1]]`` for int64 ``x``, which fails in the engine from 2 on."""
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    node = helper.make_node("Gather", ["constant", "x"], ["y"])
    return _onnx_bundle(folder, "looked_up", release, node, x, y, np.array([10, 20], np.float32))


def _onnx_bundle(
    folder: Path, name: str, release: int, node: Any, x: Any, y: Any, constant: np.ndarray
) -> Path:
    import onnx
    from onnx import helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph([node], name, [x], [y], [numpy_helper.from_array(constant, "constant")])
    file = folder / f"{name}-{release}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
    return bundled(folder, name, release, "onnxruntime", file)


def bundled(folder: Path, name: str, release: int, runtime: RuntimeName, *files: Path) -> Path:
    """Write a bundle of one variant, with the artifact's own signature."""
    with edgeml.load(files[0]) as model:
        inputs, outputs = model.spec.inputs, model.spec.outputs
    entries = {f"variants/{runtime}-float32/{file.name}": file for file in files}
    variant = Variant(
        f"{runtime}-float32", runtime, "float32", tuple(FileEntry(e, 0, "") for e in entries), (host().name,)
    )
    path = folder / f"{name}-{release}.edgeml"
    write_bundle(path, Manifest(name, release, inputs, outputs, (variant,), ()), entries)
    return path


def install(
    home: Path, bundle: Path, *variants: str, measured: Mapping[str, Any] | None = None
) -> InstalledModel:
    """Write the release folder that an installer would, with these variants, by default the first."""
    opened = open_bundle(bundle)
    manifest = opened.manifest
    names = variants or (manifest.variants[0].name,)
    model = InstalledModel(home, manifest.name)
    folder = model.release_folder(manifest.release)
    model.releases.mkdir(parents=True, exist_ok=True)
    opened.extract(folder, [entry.path for entry in needed_files(manifest, names)])
    text = dumps(manifest)
    (folder / "manifest.json").write_bytes(text)
    digest = hashlib.sha256(text).hexdigest()
    write_installation(folder, Installation(manifest.name, manifest.release, digest, names, measured or {}))
    return model


def switch(model: InstalledModel, release: int) -> None:
    """Let ``current`` lead to a release, in one step."""
    scratch = model.folder / ".current"
    scratch.symlink_to(f"releases/{release}")
    scratch.replace(model.current)
