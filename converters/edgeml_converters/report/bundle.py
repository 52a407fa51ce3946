"""Writes what a conversion came to: the bundle and the report, each whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgeml
from edgeml import typed_json
from edgeml.atomic import new_file
from edgeml.bundle import SUFFIX, bundle_file_name, write_bundle
from edgeml.bundle_place import RECORD
from edgeml.errors import BundleError, UsageError
from edgeml.manifest import DataEntry, FileEntry, Manifest, Needs, Variant
from edgeml.telemetry.reference import Reference, reference_to_json
from edgeml.words import ARTIFACT_FILE, FORMAT_OF_RUNTIME
from edgeml_converters.evaluate.drift import make_reference
from edgeml_converters.evaluate.golden import save_golden
from edgeml_converters.formats.files import model_files
from edgeml_converters.report.classes import class_names
from edgeml_converters.report.record import model_card, record, variant_file
from edgeml_converters.search.outcome import Outcome
from edgeml_converters.variants.rows import Row

GOLDEN_INPUTS = "golden/inputs.npz"
LABELS = "labels.txt"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the results go."""

    bundle: Path
    report: Path


def places(output: Path, name: str, release: int) -> Places:
    """Say where bundle and report go: into a folder, or to ``FILE.edgeml`` with the report beside it.

    Raises:
        UsageError: the output is another kind of file.
        BundleError: the name cannot be a bundle's.
    """
    if output.suffix == SUFFIX:
        return Places(output, output.with_suffix(".report.html"))
    if output.is_file() or output.suffix in {".zip", ".html", ".onnx", ".tflite", ".xml"}:
        raise UsageError(f"--output {output}: name a folder, or a bundle as NAME{SUFFIX}")
    return Places(output / bundle_file_name(name, release), output / "report.html")


def bundle_name(wanted: str, source: Path) -> str:
    """Give the bundle's name: as wanted, or made from the source's file name.

    Raises:
        UsageError: a wanted name that is not letters, digits, dots, dashes and underscores.
    """
    if wanted:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", wanted):
            raise UsageError(
                f"no bundle can be called {wanted!r}; use letters, digits, dots, dashes and underscores"
            )
        return wanted
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", source.stem).strip("-._")
    return stem or "model"


def write(outcome: Outcome, name: str, release: int, path: Path, scratch: Path) -> Manifest | None:
    """Write the bundle of all usable variants; ``None`` if there is none.

    Raises:
        BundleError: no permission, a full disk.
    """
    usable = [row for row in outcome.rows if row.status == "ok" and row.artifact is not None]
    if not usable:
        return None
    files: dict[str, Path] = {}
    usable.sort(key=lambda row: not outcome.chosen_for(row))
    variants = tuple(_variant(row, outcome, files) for row in usable)
    files[RECORD] = _text(scratch / RECORD, json.dumps(record(outcome), indent=1) + "\n")
    reference = drift_reference(outcome)
    files["README.md"] = _text(scratch / "README.md", model_card(outcome, name, release, reference))
    golden = outcome.data.golden_inputs()
    if golden:
        files[GOLDEN_INPUTS] = save_golden(scratch / "golden" / "inputs.npz", golden)
    labels = label_names(outcome)
    if labels:
        files[LABELS] = _text(scratch / LABELS, "".join(f"{label}\n" for label in labels))
    manifest = Manifest(
        name=name,
        release=release,
        inputs=outcome.source.artifact.inputs,
        outputs=outcome.source.artifact.outputs,
        variants=variants,
        files=(),
        preprocess=outcome.request.preprocess,
        postprocess=outcome.request.postprocess,
        data=tuple(DataEntry(one.role, one.count, one.sha256) for one in outcome.data.samples_read),
        labels=LABELS if labels else None,
        golden_inputs=GOLDEN_INPUTS if golden else None,
        health=typed_json.write(outcome.request.health),
        drift={} if reference is None else reference_to_json(reference),
        provenance=_provenance(outcome),
    )
    make_folder(path.parent)
    return write_bundle(path, manifest, files)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        BundleError: no permission, a full disk.
    """
    make_folder(path.parent)
    try:
        with new_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from error


def make_folder(folder: Path) -> None:
    """Make the output folder.

    Raises:
        BundleError: no permission, or a file stands in its place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"cannot make the folder {folder}: {error.strerror or error}") from error


def drift_reference(outcome: Outcome) -> Reference | None:
    """Make the reference of the evaluation data, else of the calibration data, where one is wanted."""
    data, source = outcome.data, outcome.source.artifact
    known = data.evaluation or data.calibration
    if known is None or not outcome.request.drift_reference:
        return None
    answers = data.reference_outputs if data.evaluation is not None else None
    return make_reference(
        source.inputs,
        known.spool,
        source.outputs,
        () if answers is None else answers,
        outcome.request.postprocess,
        label_names(outcome),
    )


def label_names(outcome: Outcome) -> tuple[str, ...]:
    """Give the class names that fit the output."""
    misfit = any(finding.code == "label-count" for finding in outcome.findings)
    return () if misfit else class_names(outcome)


def _variant(row: Row, outcome: Outcome, files: dict[str, Path]) -> Variant:
    folder = variant_file(row).rpartition("/")[0]
    entries = []
    for place, source in enumerate(model_files(row.artifact)) if row.artifact is not None else ():
        name = variant_file(row) if place == 0 else f"{folder}/{source.name}"
        files[name] = source
        entries.append(FileEntry(name, 0, ""))
    fallback = None
    if row.fallback is not None:
        fallback = f"{folder}/{ARTIFACT_FILE[FORMAT_OF_RUNTIME[row.runtime]]}"
        files[fallback] = row.fallback
        entries.append(FileEntry(fallback, 0, ""))
    golden = None
    if row.golden is not None:
        golden = FileEntry(f"golden/{row.name}.npz", 0, "")
        files[golden.path] = row.golden
    extra: dict[str, Any] = {}
    chosen_for = outcome.chosen_for(row)
    if chosen_for:
        extra["chosen_for"] = list(chosen_for)
    if row.runtime_version:
        extra["made_with"] = row.runtime_version
    if row.accelerator is not None:
        extra[row.accelerator] = dict(row.mapping)
    return Variant(
        name=row.name,
        runtime=row.runtime,
        scheme=row.scheme,
        files=tuple(entries),
        targets=_suited(row, outcome),
        runtime_version=version_range(row.runtime_version),
        options=row.options,
        needs=_needs(row, outcome),
        fallback=fallback,
        measured=row.measured,
        golden=golden,
        tolerance=row.tolerance,
        inputs=row.inputs,
        outputs=row.outputs,
        extra=extra,
    )


def version_range(version: str) -> str:
    """Give the engine versions that an artifact is taken to run in.

    From the one it was tried with up to the next major one: newer engines read older files, and nobody
    promises it the other way round.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    return f">={found[1]}.{found[2]},<{int(found[1]) + 1}" if found else ""


def _suited(row: Row, outcome: Outcome) -> tuple[str, ...]:
    return tuple(choice.target for choice in outcome.choices if row.name in choice.suiting)


def _needs(row: Row, outcome: Outcome) -> Needs:
    """Say what a variant needs: VNNI, where its 8-bit weights could saturate without it."""
    targets = [target for target in outcome.request.targets if target.name in row.targets]
    saturating = row.runtime != "litert" and row.scheme == "int8_static" and not row.settings.reduce_range
    x86 = bool(targets) and all(target.architecture == "x86_64" for target in targets)
    return Needs(
        memory_bytes=row.measured.peak_memory_bytes,
        accelerator=row.accelerator,
        cpu_features=("vnni",) if saturating and x86 else (),
    )


def _provenance(outcome: Outcome) -> Mapping[str, Any]:
    return {
        "source": outcome.source.path.name,
        "source_sha256": outcome.source.sha256,
        "source_format": outcome.source.state.format,
        "edgeml": edgeml.__version__,
        "chosen": {
            choice.target: {"variant": choice.variant, "reason": choice.reason} for choice in outcome.choices
        },
    }


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
