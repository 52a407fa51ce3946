"""Bundles with golden samples and a short probation: ``y = factor · x`` on ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundle import open_bundle, write_bundle
from edgeml.manifest import FileEntry, Tolerance
from tests.unit.core.release_folders import times

HEALTH = {"probation_s": 0.2, "heartbeat_timeout_s": 1.0}
VARIANT = "onnxruntime-float32"


def scaled(
    folder: Path,
    release: int,
    *,
    padding_bytes: int = 0,
    health: dict[str, Any] | None = None,
    golden_factor: float | None = None,
    **changes: Any,
) -> Path:
    """Write release N of ``times``: ``y = 2 N · x``.

    Args:
        folder: where to.
        release: its number.
        padding_bytes: of a second file that belongs to the variant, for downloads that take a while.
        health: the policy, over a probation of 0.2 s.
        golden_factor: what the golden outputs say, if not the truth.
        changes: of the manifest.
    """
    factor = 2.0 * release
    opened = open_bundle(times(folder / f"plain-{release}", factor, release))
    parts = opened.extract(folder / f"parts-{release}")
    x = np.random.default_rng(release).random((4, 16), np.float32)
    np.savez(parts / "inputs.npz", x=x)
    np.savez(parts / "golden.npz", y=x * np.float32(golden_factor or factor))
    variant = opened.manifest.variants[0]
    files = {entry.path: parts / entry.path for entry in variant.files}
    files |= {"golden/inputs.npz": parts / "inputs.npz", f"golden/{VARIANT}.npz": parts / "golden.npz"}
    entries = list(variant.files)
    if padding_bytes:
        (parts / "padding").write_bytes(np.random.default_rng(release).bytes(padding_bytes))
        files[f"variants/{VARIANT}/padding.bin"] = parts / "padding"
        entries.append(FileEntry(f"variants/{VARIANT}/padding.bin", 0, ""))
    variant = replace(
        variant,
        files=tuple(entries),
        golden=FileEntry(f"golden/{VARIANT}.npz", 0, ""),
        tolerance=Tolerance(1e-4, 0.999),
    )
    manifest = replace(
        opened.manifest,
        variants=(variant,),
        golden_inputs="golden/inputs.npz",
        health=HEALTH | (health or {}),
        **changes,
    )
    path = folder / f"times-{release}.edgeml"
    write_bundle(path, manifest, files)
    return path
