"""``reproduce``: does a conversion again from its record, and says what came out otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeml import typed_json
from edgeml.bundle import is_bundle
from edgeml.bundle_place import RECORD
from edgeml.data import DataDeclaration
from edgeml.errors import MessageError, ModelFileError, UsageError
from edgeml.health import HealthPolicy
from edgeml.installed import open_release
from edgeml.preprocess import Postprocess, Preprocess
from edgeml_converters.convert import ConvertResult, convert
from edgeml_converters.formats.files import hash_tree
from edgeml_converters.report.record import SCHEMA, tool_versions
from edgeml_converters.variants.gates import Gates
from edgeml_converters.variants.request import AUTO


@dataclass(frozen=True, slots=True)
class VariantAgain:
    """One variant, then and now."""

    name: str
    differences: tuple[str, ...]
    """What came out otherwise; empty: the same bytes."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What a second run came to."""

    result: ConvertResult
    variants: tuple[VariantAgain, ...]
    circumstances: tuple[str, ...]
    """What was not as it was: tools, data."""

    @property
    def same(self) -> bool:
        """Whether every variant has the bytes that it had."""
        return not any(one.differences for one in self.variants)


def reproduce(
    recorded: Path,
    *,
    source: Path | None = None,
    calibration: str | None = None,
    evaluation: str | None = None,
    output: Path | None = None,
    use_cache: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Convert again as a record says; latency is not measured.

    Args:
        recorded: a ``record.json``, or a bundle, which holds one.
        source: the model that was converted; by default the file of its name beside the record.
        calibration: where the calibration data are now; by default where they were.
        evaluation: where the evaluation data are now.
        output: where to write the new bundle; by default nowhere.
        use_cache: take steps that were done before from the cache.
        progress: is called with what is being done.

    Raises:
        MessageError: not a record.
        ModelFileError: the model is missing, or another than was converted.
        DataError: data that cannot be used.
    """
    then = _read(recorded)
    model = source or recorded.parent / then["source"]["path"]
    _check_model(model, then["source"]["sha256"])
    options = then["options"]
    where = f"{recorded}: options"
    gates = typed_json.read(Gates, options["gates"], where)
    result = convert(
        model,
        targets=options["targets"],
        schemes=AUTO if options.get("searches") else options["schemes"],
        runtimes=options["runtimes"],
        calibration=_data(options["calibration"], calibration, where),
        evaluation=_data(options["evaluation"], evaluation, where),
        metric=options["metric"],
        golden=options["golden"],
        preprocess=typed_json.read(Preprocess, options["preprocess"], where),
        postprocess=typed_json.read(Postprocess, options["postprocess"], where),
        label_names=options["label_names"],
        health=typed_json.read(HealthPolicy, options["health"], where),
        name=options["name"],
        release=options["release"],
        measure=False,
        io_dtype=options["io_dtype"],
        method=options["method"],
        input_shapes={name: tuple(sides) for name, sides in options["input_shapes"].items()},
        trust_code=options["trust_code"],
        accuracy_control=options.get("accuracy_control", False),
        compile_edgetpu=options.get("compiler_via") or options.get("compiles", False),
        objective="size" if options.get("objective") == "size" else "latency",
        sparsity=options.get("sparsity"),
        budget_s=_budget_s(then),
        max_drop=gates.max_drop,
        max_size_bytes=gates.max_size_bytes,
        max_slice_drop=gates.max_slice_drop,
        drift_reference=options["drift_reference"],
        output=output,
        use_cache=use_cache,
        progress=progress,
    )
    return Reproduction(result, _compared(then, result), (*_tools(then), *_other_data(then, result)))


def _read(path: Path) -> dict[str, Any]:
    """Read a record, from a file or out of a bundle.

    Raises:
        MessageError: not JSON, or no record of this schema.
    """
    text = open_release(path).read(RECORD) if is_bundle(path) else path.read_bytes()
    found = typed_json.parse(text, str(path))
    wanted = {"schema", "source", "options", "variants", "tools", "data"}
    if not isinstance(found, dict) or not wanted <= set(found) or found["schema"] != SCHEMA:
        raise MessageError(f"{path} is no record of a conversion; edgeml convert writes one into each bundle")
    return found


def _budget_s(then: Mapping[str, Any]) -> float:
    """Give the time that trials had where it ended them, else all that they need on this machine."""
    findings = [one for row in then["variants"] for one in row["findings"]]
    spent = any(one["code"] == "budget-spent" for one in findings)
    return float(then["options"]["budget_s"]) if spent else math.inf


def _check_model(model: Path, sha256: str) -> None:
    if not model.exists():
        raise ModelFileError(f"{model}, the model that was converted, is not there: give it with --model")
    found = hash_tree(model)
    if found != sha256:
        raise ModelFileError(
            f"{model} is not the model that was converted: its sha256 is {found[:16]}…, "
            f"recorded is {sha256[:16]}…"
        )


def _data(declared: object, given: str | None, where: str) -> DataDeclaration | None:
    """Take data as they were declared, from where they are now.

    Raises:
        UsageError: data were given for what had none.
    """
    if declared is None:
        if given is not None:
            raise UsageError(f"{given}: the recorded conversion had no such data")
        return None
    known = typed_json.read(DataDeclaration, declared, where)
    return known if given is None else replace(known, source=given)


def _compared(then: Mapping[str, Any], result: ConvertResult) -> tuple[VariantAgain, ...]:
    rows = {row.name: row for row in result.rows}
    found = []
    for old in then["variants"]:
        if old["status"] not in {"ok", "gate"}:
            continue
        row = rows.get(old["name"])
        if row is None or not row.is_made:
            reason = "it is not asked for any more" if row is None else row.told
            found.append(VariantAgain(old["name"], (f"not made: {reason}",)))
            continue
        differences = []
        if old.get("sha256") != row.sha256:
            differences.append(f"other bytes: {old['size_bytes']} then, {row.size_bytes} now")
        if old["accuracy"] != row.measured.accuracy:
            differences.append(f"accuracy {old['accuracy']} then, {row.measured.accuracy} now")
        found.append(VariantAgain(old["name"], tuple(differences)))
    return tuple(found)


def _tools(then: Mapping[str, Any]) -> list[str]:
    now = tool_versions()
    return [
        f"{name} was {version}, is {now.get(name, 'not installed')}"
        for name, version in then["tools"].items()
        if now.get(name) != version
    ]


def _other_data(then: Mapping[str, Any], result: ConvertResult) -> list[str]:
    now = {one.role: one for one in result.outcome.data.samples_read}
    return [
        f"the {old['role']} data are others: {old['count']} samples then, {now[old['role']].count} now"
        for old in then["data"]
        if old["role"] in now and now[old["role"]].sha256 != old["sha256"]
    ]
