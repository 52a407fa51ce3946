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


def times(folder: Path, factor: float, release: int, name: str = "times") -> Path:
    """Write ``y[1, 16] = factor · x[1, 16]`` as a bundle for ONNX Runtime."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16]) for name in "xy")
    constant = numpy_helper.from_array(np.array([factor], np.float32), "factor")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "t", [x], [y], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / f"{release}.onnx"))
    entry = FileEntry("variants/onnxruntime-float32/model.onnx", 0, "")
    variant = Variant("onnxruntime-float32", "onnxruntime", "float32", (entry,), (host().name,))
    specs = [(TensorSpec(one, (1, 16), "float32"),) for one in "xy"]
    path = folder / f"{name}-{release}.edgeml"
    write_bundle(
        path, Manifest(name, release, *specs, (variant,), ()), {entry.path: folder / f"{release}.onnx"}
    )
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
