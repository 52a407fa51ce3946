"""What there is to measure or run: a model file, or the variants of a bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgeml import plugins
from edgeml.artifact_cache import artifact
from edgeml.bundle import is_bundle, open_bundle
from edgeml.choice import options_here
from edgeml.errors import EngineMissingError, UsageError
from edgeml.formats import TITLE, identify
from edgeml.words import RUNTIME_OF_FORMAT

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from edgeml.bundle import Bundle
    from edgeml.manifest import Variant
    from edgeml_runtimes.benchmark import Job


def runtime_of(path: Path) -> str:
    """Give the runtime that reads a model file, by its content.

    Raises:
        ModelFileError: no model file, or a damaged one.
        UsageError: no runtime reads its format.
    """
    found = identify(path)
    if found not in RUNTIME_OF_FORMAT:
        raise UsageError(f"{path}: no runtime reads {TITLE[found]}; convert it first, or give --runtime")
    return RUNTIME_OF_FORMAT[found]


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


def check_options(runtimes: Collection[str], given: Mapping[str, str]) -> None:
    """Refuse engine options that none of the runtimes has; each job tells if its own has not.

    Raises:
        UsageError: names the options of one of the runtimes.
    """
    refused: UsageError | None = None
    for name in sorted(runtimes) if given else ():
        try:
            plugins.runtime(name).options(given)
        except UsageError as error:
            refused = error
        except EngineMissingError:
            continue
        else:
            return
    if refused is not None:
        raise refused


def jobs_of(path: Path, common: Job, names: Sequence[str]) -> tuple[Job, ...]:
    """Give the jobs for a model file or a bundle, whose variants are extracted as ``edgeml.load`` does.

    Raises:
        BundleError: the bundle is damaged.
        ModelFileError, UsageError: as :func:`runtime_of` and :func:`chosen_variants`.
    """
    if not is_bundle(path):
        if names:
            raise UsageError(f"{path} is a model file and has no variants; leave --variant out")
        return (replace(common, artifact=str(path), runtime=common.runtime or runtime_of(path)),)
    bundle = open_bundle(path)
    return tuple(
        replace(
            common,
            artifact=str(artifact(bundle, variant)),
            runtime=variant.runtime,
            options=options_here(variant) | dict(common.options),
            variant=variant.name,
        )
        for variant in chosen_variants(bundle, names, common.runtime)
    )
