"""Bundles to install: real models with golden samples, sound or not, and ones of mere bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundle import write_bundle
from edgeml.installed import InstalledModel, open_installed
from edgeml.manifest import FileEntry, Manifest, Needs, Tolerance, Variant
from edgeml.targets import host
from edgeml.tensors import TensorSpec
from edgeml.testing.models import make_double

NAME = "double"
SPEC = {
    "inputs": (TensorSpec("x", (1, 16), "float32"),),
    "outputs": (TensorSpec("y", (1, 16), "float32"),),
}


def model_bundle(
    folder: Path, release: int, *, off: float = 0.0, health: Mapping[str, Any] | None = None
) -> Path:
    """A bundle whose one LiteRT variant doubles; its golden outputs are wrong by ``off``."""
    folder.mkdir(parents=True, exist_ok=True)
    model = make_double(folder, "litert")
    x = np.arange(64, dtype=np.float32).reshape(4, 16)
    np.savez(folder / "inputs.npz", x=x)
    np.savez(folder / "outputs.npz", y=2 * x + off)
    (folder / "release.txt").write_text(f"release {release}\n")
    variant = Variant(
        "litert-float32",
        "litert",
        "float32",
        (FileEntry("variants/litert-float32/model.tflite", 0, ""),),
        (host().name,),
        golden=FileEntry("golden/litert-float32.npz", 0, ""),
        tolerance=Tolerance(max_abs=1e-3),
    )
    manifest = Manifest(
        NAME,
        release,
        **SPEC,
        variants=(variant,),
        files=(FileEntry("golden/inputs.npz", 0, ""), FileEntry("labels.txt", 0, "")),
        labels="labels.txt",
        golden_inputs="golden/inputs.npz",
        health=health or {},
    )
    path = folder / f"{NAME}-{release}.edgeml"
    write_bundle(
        path,
        manifest,
        {
            "variants/litert-float32/model.tflite": model,
            "golden/litert-float32.npz": folder / "outputs.npz",
            "golden/inputs.npz": folder / "inputs.npz",
            "labels.txt": folder / "release.txt",
        },
    )
    return path


def bytes_bundle(
    folder: Path,
    release: int,
    *,
    name: str = NAME,
    size_bytes: int = 2000,
    variants: Mapping[str, Needs] | None = None,
    health: Mapping[str, Any] | None = None,
) -> Path:
    """A bundle of variants that are no models: what moves, is hashed and switched is the same."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    entries = []
    for variant, needs in (variants or {"litert-float32": Needs()}).items():
        seed = int.from_bytes(hashlib.sha256(f"{name} {release} {variant}".encode()).digest()[:4])
        place = folder / f"{name}-{release}-{variant}"
        place.write_bytes(np.random.default_rng(seed).bytes(size_bytes))
        path = f"variants/{variant}/model file.tflite"
        files[path] = place
        runtime, _, scheme = variant.partition("-")
        entries.append(
            Variant(variant, runtime, scheme, (FileEntry(path, 0, ""),), (host().name,), needs=needs)
        )
    labels = folder / "labels.txt"
    labels.write_text("one\ntwo\n")
    manifest = Manifest(
        name,
        release,
        **SPEC,
        variants=tuple(entries),
        files=(FileEntry("labels.txt", 0, ""),),
        labels="labels.txt",
        health=health or {},
    )
    path = folder / f"{name}-{release}.edgeml"
    write_bundle(path, manifest, files | {"labels.txt": labels})
    return path


def is_whole(home: Path, name: str = NAME) -> int | None:
    """Hash all that ``current`` leads to by the manifest; give its release, ``None`` for no release.

    Raises:
        AssertionError: something there is not what was published.
    """
    model = InstalledModel(home, name)
    if not model.current.is_symlink():
        return None
    bundle = open_installed(model.current.resolve())
    assert bundle.damaged() == {}
    assert bundle.manifest.release == model.running()
    return bundle.manifest.release


def are_whole(home: Path, name: str = NAME) -> int | None:
    """Hash every release that is there; give the one that runs, as :func:`is_whole`."""
    for folder in InstalledModel(home, name).releases.glob("[0-9]*/"):
        assert (folder / "installed.json").exists(), folder
        assert open_installed(folder).damaged() == {}
    return is_whole(home, name)
