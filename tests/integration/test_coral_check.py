"""What is said of real models before they are compiled, against what the real compiler made of them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from edgeml_converters.coral.check import Check, check_file

pytestmark = pytest.mark.data
LEAST_BYTES = 20_000


@dataclass(frozen=True)
class Pair:
    """A source, what the compiler made of it, and what was said before."""

    name: str
    check: Check
    mapped: int
    on_cpu: frozenset[int]
    parameter_bytes: int
    log: Path

    @property
    def right(self) -> int:
        """Operators of which the right thing was said; unknown is wrong."""
        said = self.check.placements.operators
        return sum(one.placement == ("cpu" if one.index in self.on_cpu else "tpu") for one in said)


@pytest.fixture(scope="module")
def pairs(data_dir: Path) -> list[Pair]:
    folder = data_dir / "edgetpu_pairs"
    with (folder / "manifest.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        Pair(
            row["id"],
            check_file(folder / f"{row['id']}.tflite"),
            int(row["expected_mapped_ops"]),
            frozenset(json.loads(row["cpu_op_indices"])),
            int(row["on_chip_param_bytes"]) + int(row["off_chip_param_bytes"]),
            folder / f"{row['id']}_edgetpu.log",
        )
        for row in rows
    ]


def test_the_number_mapped_is_exact(pairs: list[Pair]) -> None:
    wrong = [pair.name for pair in pairs if pair.check.placements.mapped != pair.mapped]
    print(f"{len(pairs) - len(wrong)} of {len(pairs)} counts exact")
    assert len(pairs) >= 50
    assert len(wrong) <= len(pairs) * 0.05, wrong


def test_each_operator_is_placed_as_it_was(pairs: list[Pair]) -> None:
    right, total = sum(pair.right for pair in pairs), sum(pair.check.total for pair in pairs)
    print(f"{right} of {total} operators right")
    assert right >= total * 0.99, [pair.name for pair in pairs if pair.right < pair.check.total]


def test_reasons_are_those_of_the_log(pairs: list[Pair]) -> None:
    logged = [pair for pair in pairs if pair.log.is_file()]
    assert len(logged) > 20
    for pair in logged:
        said = Counter((one.kind, one.reason) for one in pair.check.placements.operators)
        assert said == rows_of(pair.log), pair.name


def rows_of(log: Path) -> Counter[tuple[str, str]]:
    rows: Counter[tuple[str, str]] = Counter()
    for line in log.read_text().partition("Status")[2].split("\n"):
        if line.strip():
            kind, count, reason = line.split(None, 2)
            rows[kind, reason.strip()] += int(count)
    return rows


def test_parameters_are_right_to_one_per_cent(pairs: list[Pair]) -> None:
    large = [pair for pair in pairs if pair.parameter_bytes > LEAST_BYTES]
    off = {
        pair.name: round(pair.check.parameters.total_bytes / pair.parameter_bytes - 1, 4)
        for pair in large
        if abs(pair.check.parameters.total_bytes - pair.parameter_bytes) > pair.parameter_bytes * 0.01
    }
    print(f"{len(large) - len(off)} of {len(large)} parameter sizes within 1 %; off: {off}")
    assert len(off) <= len(large) * 0.1, off


def test_a_split_is_named_with_what_it_costs(pairs: list[Pair]) -> None:
    (first, *_) = [pair.check for pair in pairs if "deeplab" in pair.name]
    split = first.placements.split
    assert split is not None
    assert split.kind == "RESIZE_BILINEAR"
    assert split.mapped_without > first.placements.mapped
    assert "resizes by" in str(split.objection)
