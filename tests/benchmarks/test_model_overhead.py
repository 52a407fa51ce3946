"""What `Model.__call__` costs over each engine's own fastest safe call, the bundle's names included."""

from __future__ import annotations

import statistics
import timeit
from pathlib import Path

import pytest

import edgeml
from edgeml.bundle import write_bundle
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.targets import host
from edgeml.testing.models import make_double
from edgeml.words import RuntimeName
from tests.benchmarks.test_overhead import BARE, Call, X

BUDGET_US = 1.5
ROUNDS, CALLS = 41, 500


def _microseconds(*calls: Call) -> list[float]:
    """Time the calls in turn; give the median of each."""
    rounds = [[timeit.timeit(call, number=CALLS) / CALLS * 1e6 for call in calls] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _bundle(folder: Path, runtime: RuntimeName) -> Path:
    artifact = make_double(folder, runtime)
    files = {f"variants/v/{place.name}": place for place in (artifact, *artifact.parent.glob("*.bin"))}
    with edgeml.load(artifact) as model:
        inputs, outputs = model.spec.inputs, model.spec.outputs
    entries = tuple(FileEntry(name, 0, "") for name in files)
    variant = Variant(f"{runtime}-float32", runtime, "float32", entries, (host().name,))
    write_bundle(folder / "double-1.edgeml", Manifest("double", 1, inputs, outputs, (variant,), ()), files)
    return folder / "double-1.edgeml"


@pytest.mark.parametrize("name", BARE)
def test_a_model_costs_at_most_one_and_a_half_microseconds_over_the_bare_engine(
    name: RuntimeName, tmp_path: Path
) -> None:
    with edgeml.load(_bundle(tmp_path, name)) as model:
        bare, ours = _microseconds(BARE[name](make_double(tmp_path, name)), lambda: model(X))
    print(f"{name}: bare {bare:.2f} us, model {ours:.2f} us, {ours - bare:+.2f} us")
    assert ours - bare <= BUDGET_US
