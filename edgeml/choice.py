"""Which variant of a bundle this machine runs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeml import plugins
from edgeml.engines import engine, version_fits
from edgeml.errors import BundleError, EngineMissingError, EngineVersionError, UsageError
from edgeml.manifest import Manifest, Variant
from edgeml.targets import Target, named_target

CANDIDATES = 3
"""Variants that a device tries out at most."""
_FOR_OTHERS, _FOR_NONE = 2, 3
"""Ranks of what was made for other machines, and of what suits no target."""
_ACCELERATED, _PLAIN, _FALLS_BACK = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant, and why one should be careful with it."""

    variant: Variant
    warning: str | None = None
    """Set when nothing in the bundle was made for this kind of machine."""


def choose(
    manifest: Manifest,
    machine: Target,
    lacking: Callable[[Variant], str | None],
    *,
    runtime: str | None = None,
    variant: str | None = None,
) -> Sequence[Choice]:
    """Order the variants that this machine can run, best first.

    Variants for an accelerator that is here come first, those that would have to fall back to the CPU last.
    Of the others those made for this very class of machine come first, then those made for a class whose
    features this machine has (the more features, the earlier), then the rest with a warning, those that suit
    no target at all last; among equals what the conversion chose for this class (or for the most capable one
    whose features this machine has) wins, then the lowest measured latency, then the order of the manifest.

    Args:
        manifest: of the bundle.
        machine: ``targets.host()``.
        lacking: says why a variant's engine cannot be used here, ``None`` if it can.
        runtime: take only this runtime's.
        variant: take only this one, whatever it was made for.

    Raises:
        UsageError: the bundle has no such variant or runtime.
        EngineMissingError: no engine that the bundle has a variant for is installed; lists the commands.
        BundleError: this machine has not got what any variant needs (memory, accelerator).
    """
    asked = _asked(manifest, runtime, variant)
    missing = {one.name: reason for one in asked if (reason := lacking(one)) is not None}
    here = [one for one in asked if one.name not in missing]
    if not here:
        reasons = "; ".join(dict.fromkeys(missing.values()))
        kind = EngineMissingError if "not installed" in reasons else EngineVersionError
        raise kind(f"no variant of {manifest.name} can run here: {reasons}")
    unfit = {one.name: reason for one in here if (reason := _unfit(one, machine)) is not None}
    fit = here if variant is not None else [one for one in here if one.name not in unfit]
    if not fit:
        reasons = "; ".join(f"{name} {reason}" for name, reason in unfit.items())
        raise BundleError(f"no variant of {manifest.name} suits this machine: {reasons}")
    ranked = sorted(
        fit,
        key=lambda one: (
            _acceleration(one, machine),
            _rank(one, machine),
            _chosen(one, machine),
            _latency(one),
        ),
    )
    return [Choice(one, _warning(manifest, one, machine)) for one in ranked]


def lacking_here(variant: Variant) -> str | None:
    """Say why a variant's engine cannot be used by this interpreter; ``None`` if it can."""
    if variant.runtime not in plugins.names(plugins.RUNTIME_GROUP):
        return f"no runtime {variant.runtime} is installed: pip install 'edgeml-runtimes[{variant.runtime}]'"
    found = engine(variant.runtime)
    if found is None or found.lacking is not None:
        return None if found is None else found.lacking
    if found.version is not None and not version_fits(found.version, variant.runtime_version):
        wanted = variant.runtime_version
        return f"{variant.name} needs {found.distribution} {wanted}, {found.version} is here: {found.install}"
    return None


def fitting(manifest: Manifest, machine: Target, engines: Mapping[str, str]) -> Sequence[Choice]:
    """Order the variants that another machine can run, best first, by what it says of itself.

    Args:
        manifest: of the bundle.
        machine: as that machine's ``targets.host()``.
        engines: runtime name to the version of its engine that is installed there.

    Raises:
        EngineMissingError, BundleError: as :func:`choose`.
    """

    def lacking(variant: Variant) -> str | None:
        version = engines.get(variant.runtime)
        if version is None:
            return f"{variant.runtime} is not installed"
        if version_fits(version, variant.runtime_version):
            return None
        return f"{variant.name} needs {variant.runtime} {variant.runtime_version}, {version} is there"

    return choose(manifest, machine, lacking)


def candidates(choices: Sequence[Choice], machine: Target) -> Sequence[Choice]:
    """Give those that a device fetches: the best, or several to try out where nothing says which is quickest.

    Args:
        choices: as :func:`fitting` gave them, at least one.
        machine: the same.
    """
    best = choices[0]
    if _is_known(best.variant, machine):
        return (best,)

    def is_like(one: Choice) -> bool:
        made_for = machine.name in one.variant.targets
        return (one.warning is None, made_for) == (best.warning is None, machine.name in best.variant.targets)

    return [one for one in choices if is_like(one)][:CANDIDATES]


def _is_known(variant: Variant, machine: Target) -> bool:
    """Say whether somebody measured or chose a variant for this class of machine."""
    measured, chosen_for = variant.measured, variant.extra.get("chosen_for")
    on = (measured.machine or "").split()
    return (measured.latency_ms is not None and machine.name in on[:1]) or (
        isinstance(chosen_for, (list, tuple)) and machine.name in chosen_for
    )


def options_here(variant: Variant) -> dict[str, str]:
    """Give the engine options that a variant was measured with, threads as far as this machine has cores."""
    threads = variant.measured.threads
    options = ({} if threads is None else {"threads": str(threads)}) | dict(variant.options)
    cores = os.cpu_count() or 1
    return {
        name: str(min(int(text), cores)) if name.endswith("threads") and text.isdecimal() else text
        for name, text in options.items()
    }


def _asked(manifest: Manifest, runtime: str | None, variant: str | None) -> list[Variant]:
    asked = [
        one for one in manifest.variants if runtime in {None, one.runtime} and variant in {None, one.name}
    ]
    if not asked:
        wanted = " and ".join(
            text for text in (variant and f"variant {variant!r}", runtime and f"runtime {runtime!r}") if text
        )
        known = ", ".join(one.name for one in manifest.variants) or "none"
        raise UsageError(f"{manifest.name} has no {wanted or 'variants'}; its variants are: {known}")
    return asked


def _unfit(variant: Variant, machine: Target) -> str | None:
    needs = variant.needs
    if _acceleration(variant, machine) == _FALLS_BACK and variant.fallback is None:
        return f"needs the accelerator {needs.accelerator}"
    if needs.memory_bytes is not None and 0 < machine.memory_bytes < needs.memory_bytes:
        return f"needs {needs.memory_bytes >> 20} MiB of memory, here are {machine.memory_bytes >> 20}"
    return None


def _acceleration(variant: Variant, machine: Target) -> int:
    accelerator = variant.needs.accelerator
    if accelerator is None:
        return _PLAIN
    return _ACCELERATED if accelerator in machine.accelerators else _FALLS_BACK


def _rank(variant: Variant, machine: Target) -> tuple[int, int]:
    """Give 0 for this class of machine, 1 for one whose features are all here, 2 for others, 3 for none."""
    if not variant.targets:
        return _FOR_NONE, 0
    if not set(variant.needs.cpu_features) <= machine.cpu_features:
        return _FOR_OTHERS, 0
    return _nearest(variant.targets, machine)


def _chosen(variant: Variant, machine: Target) -> tuple[int, int]:
    """Give the rank of the target that the conversion chose this variant for."""
    chosen_for = variant.extra.get("chosen_for")
    names = (
        [name for name in chosen_for if isinstance(name, str)] if isinstance(chosen_for, list | tuple) else []
    )
    return _nearest(names, machine)


def _nearest(names: Sequence[str], machine: Target) -> tuple[int, int]:
    """Rank by the target nearest to this machine."""
    if machine.name in names:
        return 0, 0
    known = (named_target(name) for name in names)  # others are those of who made the bundle
    features = [len(one.cpu_features) for one in known if one is not None and one.runs_on(machine)]
    return (1, -max(features)) if features else (_FOR_OTHERS, 0)


def _latency(variant: Variant) -> float:
    latency = variant.measured.latency_ms
    return math.inf if latency is None else latency.p50


def _warning(manifest: Manifest, variant: Variant, machine: Target) -> str | None:
    if _rank(variant, machine)[0] < _FOR_OTHERS:
        return None
    made = ", ".join(variant.targets) or "no target"
    lacks = sorted(set(variant.needs.cpu_features) - machine.cpu_features)
    why = f"; this CPU lacks {', '.join(lacks)}" if lacks else ""
    return (
        f"{manifest.name}: nothing in the bundle was made for this class of machine ({machine.name}); "
        f"taking {variant.name}, made for {made}{why}. Its results and latency may differ: "
        f"convert for {machine.name}"
    )
