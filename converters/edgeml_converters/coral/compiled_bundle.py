"""A compiled model and its source in one variant of a bundle: where there is no Edge TPU, the source runs."""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import edgeml
from edgeml.atomic import replacing_file
from edgeml.bundle import Bundle, write_bundle
from edgeml.edgetpu import ACCELERATOR
from edgeml.errors import UsageError
from edgeml.manifest import FileEntry, Manifest, Needs, Variant
from edgeml.targets import named_target
from edgeml.words import Scheme
from edgeml_converters.coral.compilation import COMPILED_FILE, SUFFIX, Compilation
from edgeml_converters.formats.inspection import inspect_model
from edgeml_converters.report.bundle import bundle_name, make_folder
from edgeml_converters.variants.compiled import COMPILED

CORALS: Final = ("coral-usb", "coral-dev-board")
_INT8: Final[Scheme] = "int8_static"


def compilable(bundle: Bundle, wanted: str | None) -> Variant:
    """Give the variant of a bundle that the compiler can take: int8 for LiteRT, or the one wanted.

    Raises:
        UsageError: there is none, or the one wanted is not for LiteRT, or is compiled already.
    """
    plain = [
        one
        for one in bundle.manifest.variants
        if one.runtime == "litert" and one.needs.accelerator is None and one.files[0].path.endswith(".tflite")
    ]
    if wanted is not None:
        found = next((one for one in plain if one.name == wanted), None)
        if found is None:
            known = ", ".join(one.name for one in plain) or "none"
            raise UsageError(f"{bundle.path} has no variant {wanted!r} to compile; it could be: {known}")
        return found
    int8 = [one for one in plain if one.scheme == _INT8]
    found = next((one for one in int8 if any(map(_has_edge_tpu, one.targets))), next(iter(int8), None))
    if found is None:
        raise UsageError(
            f"{bundle.path} has no {_INT8} variant for LiteRT, which is what the Edge TPU compiler takes; "
            f"make one: edgeml convert --target {CORALS[0]} --scheme {_INT8} --calibration DATA"
        )
    return found


def write_files(made: Compilation, folder: Path) -> tuple[Path, Path]:
    """Write the compiled file and the compiler's log beside their source, which is copied if need be.

    Raises:
        UsageError: another model of the source's name is there.
        BundleError: a folder cannot be made.
    """
    make_folder(folder)
    stem = made.source.stem
    source, compiled = folder / made.source.name, folder / f"{stem}{SUFFIX}.tflite"
    if not source.exists():
        with replacing_file(source) as scratch:
            shutil.copyfile(made.source, scratch)
    elif not filecmp.cmp(source, made.source, shallow=False):
        raise UsageError(f"{source} is another model: give another folder, or compile that one")
    log = compiled.with_suffix(".log")
    with replacing_file(log) as scratch:
        scratch.write_text(made.log, encoding="utf-8")
    with replacing_file(compiled) as scratch:
        shutil.copyfile(made.compiled.path, scratch)
    return compiled, log


def write_new(made: Compilation, path: Path) -> Manifest:
    """Write a bundle of a compiled TFLite file and its source.

    Raises:
        BundleError: it cannot be written.
    """
    found = inspect_model(made.source)
    source = Variant(
        f"litert-{_INT8}", "litert", _INT8, (), CORALS, inputs=found.inputs, outputs=found.outputs
    )
    files: dict[str, Path] = {}
    make_folder(path.parent)
    manifest = Manifest(
        name=bundle_name("", made.source),
        release=1,
        inputs=found.inputs,
        outputs=found.outputs,
        variants=(_compiled_variant(source, made, files),),
        files=(),
        provenance={"source": made.source.name, "source_sha256": found.sha256, "edgeml": edgeml.__version__},
    )
    return write_bundle(path, manifest, files)


def write_added(bundle: Bundle, variant: Variant, made: Compilation, path: Path) -> Manifest:
    """Write a bundle again, with the compiled model of one of its variants before all others.

    One that was compiled of that variant before is replaced.

    Raises:
        BundleError: it is damaged, or cannot be written.
    """
    files: dict[str, Path] = {}
    make_folder(path.parent)
    compiled = _compiled_variant(variant, made, files)
    kept = tuple(one for one in bundle.manifest.variants if one.name != compiled.name)
    with tempfile.TemporaryDirectory(prefix="edgeml-coral-") as scratch:
        folder = bundle.extract(Path(scratch) / "bundle")
        old = [entry for one in kept for entry in (*one.files, *([one.golden] if one.golden else ()))]
        files |= {entry.path: folder / entry.path for entry in (*old, *bundle.manifest.files)}
        if variant.golden is not None and compiled.golden is not None:
            files[compiled.golden.path] = folder / variant.golden.path
        return write_bundle(path, replace(bundle.manifest, variants=(compiled, *kept)), files)


def _compiled_variant(source: Variant, made: Compilation, files: dict[str, Path]) -> Variant:
    """Describe the compiled variant, and add its files to those of the bundle.

    Its accuracy is its source's, whose integers it computes with; its times are nobody's yet.
    """
    untimed = replace(
        source.measured, latency_ms=None, load_ms=None, peak_memory_bytes=None, machine=None, threads=None
    )
    name = source.name + COMPILED
    compiled, fallback = f"variants/{name}/{COMPILED_FILE}", f"variants/{name}/model.tflite"
    files |= {compiled: made.compiled.path, fallback: made.source}
    targets = tuple(one for one in source.targets if _has_edge_tpu(one)) or source.targets
    extra: dict[str, Any] = {
        "chosen_for": [one for one in targets if _has_edge_tpu(one)],
        ACCELERATOR: made.mapping(),
    }
    return replace(
        source,
        name=name,
        files=(FileEntry(compiled, 0, ""), FileEntry(fallback, 0, "")),
        targets=targets,
        needs=Needs(accelerator=ACCELERATOR),
        fallback=fallback,
        measured=untimed,
        golden=None if source.golden is None else FileEntry(f"golden/{name}.npz", 0, ""),
        extra={key: value for key, value in source.extra.items() if key == "made_with"} | extra,
    )


def _has_edge_tpu(name: str) -> bool:
    target = named_target(name)
    return target is not None and ACCELERATOR in target.accelerators
