"""What the comparison with stock tools does in processes of its own: convert, run, and time artifacts.

``python -m tests.benchmarks.stock_process convert|outputs|latency JSON`` prints JSON on its last line.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from edgeml import artifact_cache, plugins
from edgeml.bundle import open_bundle
from edgeml.runtime import Session
from tests.benchmarks.stock_faces import joined

SLICE_S: Final = 0.03
"""For which each artifact runs in each round."""
WARMUP: Final = 10


def convert(source: str, output: str, runtimes: Sequence[str], **options: Any) -> dict[str, Any]:
    """Convert with edgeml; give what was chosen and each variant's artifact."""
    from edgeml_converters.convert import convert as run

    started = time.monotonic()
    result = run(source, runtimes=runtimes, output=output, **options)
    seconds = time.monotonic() - started
    result.require_variants()
    assert result.bundle is not None
    bundle = open_bundle(result.bundle)
    (choice,) = result.choices
    (one,) = (one for one in bundle.manifest.variants if one.name == choice.variant)
    artifact = str(artifact_cache.artifact(bundle, one))
    found = {"chosen": one.name, "options": dict(one.options), "why": choice.reason}
    return found | {"seconds": seconds, "artifact": artifact}


def outputs(
    runtime: str, artifact: str, options: Mapping[str, str], inputs: str, target: str
) -> dict[str, Any]:
    """Run an artifact over all inputs, and save what it gives."""
    samples = np.load(inputs, mmap_mode="r")
    with _load(runtime, artifact, options) as session:
        name = session.inputs[0].name
        found = [joined(session.run({name: np.array(item[None])})) for item in samples]
    np.save(target, np.concatenate(found))
    return {"input": name}


def latency(
    runtime: str, artifacts: Mapping[str, tuple[str, Mapping[str, str]]], inputs: str, rounds: int
) -> dict[str, list[float]]:
    """Give each artifact's median microseconds of each round; the order is another in each."""
    sample = np.array(np.load(inputs, mmap_mode="r")[:1])
    found: dict[str, list[float]] = {name: [] for name in artifacts}
    with contextlib.ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {}
        for name, (path, options) in artifacts.items():
            session = stack.enter_context(_load(runtime, path, options))
            fed = {session.inputs[0].name: sample}
            calls[name] = lambda run=session.run, fed=fed: run(fed)
        for call in calls.values():
            for _ in range(WARMUP):
                call()
        generator = np.random.default_rng(0)
        for _ in range(rounds):
            for name in generator.permutation(list(calls)):
                found[name].append(1e6 * _median_s(calls[name]))
    return found


def _load(runtime: str, artifact: str, options: Mapping[str, str]) -> Session:
    driver = plugins.runtime(runtime)
    return driver.load(Path(artifact), driver.options(options))


def _median_s(call: Callable[[], object]) -> float:
    call()  # what ran before has filled the caches with its own
    times: list[float] = []
    end = time.perf_counter() + SLICE_S
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times)


def main() -> None:
    """Do one job."""
    job, given = sys.argv[1], json.loads(sys.argv[2])
    done = {"convert": convert, "outputs": outputs, "latency": latency}[job](**given)
    print(f"\n{json.dumps(done)}")


if __name__ == "__main__":
    main()
