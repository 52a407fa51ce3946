"""The self-test of one variant: the fresh process. ``python -m edgeml.selftested REQUEST ANSWER``.

REQUEST is JSON; lines of JSON go to the open file handle ANSWER: the stage begun, at last the result.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.bundle import Bundle
from edgeml.cpu import emulated
from edgeml.errors import BundleError, EdgemlError, EngineError
from edgeml.installed import open_release
from edgeml.loading import load
from edgeml.manifest import Manifest, Tolerance, Variant
from edgeml.model import Model
from edgeml.parity import OutputParity, samples
from edgeml.stopwatch import drawn, latency_ms, peak_bytes, reset_peak, resident_bytes, run_times, timed
from edgeml.targets import host

SECONDS: Final = 0.5
"""How long the model is timed."""
SEED: Final = 0
Say = Callable[[dict[str, Any]], None]


def main(request: dict[str, Any], say: Say) -> None:
    """Test what ``request`` names, and say so."""
    try:
        say(_test(Path(request["folder"]), request["variant"], say))
    except EngineError as error:
        say(_failed("engine", str(error)))
    except EdgemlError as error:
        say(_failed("manifest", str(error)))
    except MemoryError:
        say(_failed("memory", "this machine has not got the memory that the variant needs"))


def _test(folder: Path, name: str, say: Say) -> dict[str, Any]:
    bundle = open_release(folder)
    variant = _variant(bundle.manifest, name)
    golden = _golden(bundle, variant)
    host()
    plugins.names(plugins.RUNTIME_GROUP)  # the search for entry points is not the engine's import
    reset_peak()
    memory_before = resident_bytes()
    say({"stage": "imported its engine"})
    plugins.runtime(variant.runtime)
    say({"stage": "loaded the model"})
    load_ms, model = timed(lambda: load(folder, variant=name))
    with model:
        say({"stage": "ran the golden samples"})
        inputs = _inputs(model, golden)
        faults = [] if golden is None else _faults(model, inputs, golden)
        found: dict[str, Any] = {"load_ms": load_ms}
        if inputs and not faults:
            say({"stage": "was timed"})
            _, times_ns = run_times(model.run, inputs[0], SECONDS)
            found["latency_ms"] = asdict(latency_ms(times_ns))
        fallback = model.fallback
    found |= {"peak_memory_bytes": peak_bytes() - memory_before, "emulated": emulated()}
    if faults:
        return found | _failed("parity", "; ".join(faults))
    detail = f"{len(inputs)} golden samples within the tolerance"
    if golden is None:
        ran = "loaded and ran" if inputs else "loaded"
        detail = f"the bundle has no golden samples: only {ran}"
    if fallback is not None:
        detail += f"; on the CPU, from its source: {fallback}"
    return found | {"passed": True, "detail": detail}


def _failed(reason: str, detail: str) -> dict[str, Any]:
    return {"passed": False, "reason": reason, "detail": detail}


def _variant(manifest: Manifest, name: str) -> Variant:
    for variant in manifest.variants:
        if variant.name == name:
            return variant
    known = ", ".join(variant.name for variant in manifest.variants)
    raise BundleError(
        f"{manifest.name} release {manifest.release} has no variant {name!r}; here are: {known}"
    )


# --- golden samples


@dataclass(frozen=True, slots=True)
class _Golden:
    """The golden samples of a variant, stacked along the first axis."""

    where: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    tolerance: Tolerance


def _golden(bundle: Bundle, variant: Variant) -> _Golden | None:
    """Read the golden samples; ``None`` if the bundle has none for any variant.

    Raises:
        BundleError: a part of them is missing.
    """
    manifest = bundle.manifest
    if manifest.golden_inputs is None and all(one.golden is None for one in manifest.variants):
        return None
    if manifest.golden_inputs is None or variant.golden is None or variant.tolerance is None:
        lacks = "inputs" if manifest.golden_inputs is None else "outputs" if variant.golden is None else ""
        raise BundleError(
            f"{bundle.path}: {variant.name} has no {f'golden {lacks}' if lacks else 'tolerance'}, so that "
            "it cannot be tested; make the bundle again"
        )
    return _Golden(
        f"{bundle.path}: {manifest.golden_inputs}",
        _arrays(bundle, manifest.golden_inputs),
        _arrays(bundle, variant.golden.path),
        variant.tolerance,
    )


def _arrays(bundle: Bundle, path: str) -> dict[str, Array]:
    try:
        with np.load(io.BytesIO(bundle.read(path)), allow_pickle=False) as archive:
            return {name: np.atleast_1d(archive[name]) for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, BadZipFile) as error:
        raise BundleError(
            f"{bundle.path}: {path} is no npz of plain arrays; make the bundle again"
        ) from error


def _inputs(model: Model, golden: _Golden | None) -> list[dict[str, Array]]:
    """Give the golden samples, or a drawn one; none for a model whose shapes are free."""
    specs = model.spec.inputs
    if golden is not None:
        return list(samples(specs, golden.inputs, golden.where))
    random = np.random.default_rng(SEED)
    drawn_sample = {}
    for spec in specs:
        shape = tuple(1 if side is None and not place else side for place, side in enumerate(spec.shape))
        if None in shape:
            return []
        drawn_sample[spec.name] = drawn(spec, [side for side in shape if side is not None], random)
    return [drawn_sample]


def _faults(model: Model, inputs: Sequence[Mapping[str, Array]], golden: _Golden) -> list[str]:
    """Run the golden samples; say which outputs are beyond the tolerance."""
    outputs = {spec.name for spec in model.spec.outputs}
    if outputs != golden.outputs.keys():
        raise BundleError(
            f"{golden.where}: the golden outputs are {', '.join(golden.outputs)}, "
            f"the model's {', '.join(sorted(outputs))}; make the bundle again"
        )
    compared = {
        name: OutputParity(name, expected, golden.tolerance) for name, expected in golden.outputs.items()
    }
    for sample in inputs:
        for name, array in model.run(sample).items():
            compared[name].add(array)
    return [fault for parity in compared.values() if (fault := parity.fault()) is not None]


# --- the process


def _restrain(alarm_s: float) -> None:
    """See that this process ends even if its parent was killed, and goes first if memory runs out."""
    signal.setitimer(signal.ITIMER_REAL, alarm_s)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    _restrain(asked["alarm_s"])
    warnings.simplefilter("ignore")  # a variant made for another machine is measured here
    with os.fdopen(int(sys.argv[2]), "w", buffering=1) as answers:
        main(asked, lambda part: print(json.dumps(part), file=answers))
