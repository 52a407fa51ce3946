"""What there is to measure or run: a model file, or the variants of a bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeml.bundle import MANIFEST, SUFFIX, open_bundle
from edgeml.errors import UsageError
from edgeml.formats import TITLE, identify
from edgeml.words import FORMAT_OF_RUNTIME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgeml.bundle import Bundle
    from edgeml.manifest import Variant
    from edgeml_runtimes.benchmark import Job


def is_bundle(path: Path) -> bool:
    """Say whether a path is meant as a bundle: by its name, or as an extracted one."""
    return path.suffix == SUFFIX or (path / MANIFEST).is_file()


def runtime_of(path: Path) -> str:
    """Give the runtime that reads a model file, by its content.

    Raises:
        ModelFileError: no model file, or a damaged one.
        UsageError: no runtime reads its format.
    """
    found = identify(path)
    for runtime, kind in FORMAT_OF_RUNTIME.items():
        if kind == found:
            return runtime
    raise UsageError(f"{path}: no runtime reads {TITLE[found]}; convert it first, or give --runtime")


def chosen_variants(bundle: Bundle, names: Sequence[str], runtime: str | None = None) -> tuple[Variant, ...]:
    """Give the variants of these names, all by default, and of this runtime.

    Raises:
        UsageError: there is none of that name.
    """
    known = {variant.name: variant for variant in bundle.manifest.variants}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"{bundle.path} has no variant {unknown[0]!r}; it has: {', '.join(known)}")
    found = tuple(
        variant
        for variant in known.values()
        if (not names or variant.name in names) and runtime in {None, "", variant.runtime}
    )
    if not found:
        raise UsageError(f"{bundle.path} has no variant for {runtime}; it has: {', '.join(known)}")
    return found


def jobs_of(path: Path, common: Job, names: Sequence[str], folder: Path) -> tuple[Job, ...]:
    """Give the jobs for a model file or a bundle, whose files are extracted into ``folder``."""
    if not is_bundle(path):
        if names:
            raise UsageError(f"{path} is a model file and has no variants; leave --variant out")
        return (replace(common, artifact=str(path), runtime=common.runtime or runtime_of(path)),)
    bundle = open_bundle(path)
    jobs = []
    for variant in chosen_variants(bundle, names, common.runtime):
        place = folder / f"{len(list(folder.iterdir()))}"
        bundle.extract(place, [entry.path for entry in variant.files])
        jobs.append(
            replace(
                common,
                artifact=str(place / variant.files[0].path),
                runtime=variant.runtime,
                options={**variant.options, **common.options},
                variant=variant.name,
            )
        )
    return tuple(jobs)
