"""``reproduce``: does a conversion again from its record, and says what came out otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeml.data import DataDeclaration
from edgeml.errors import ModelFileError, UsageError
from edgeml.targets import Target, host, named_target
from edgeml_converters.arguments import read_targets
from edgeml_converters.convert import ConvertResult, convert
from edgeml_converters.formats.files import hash_tree
from edgeml_converters.recorded import Record, read_record
from edgeml_converters.report.record import tool_versions
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
    targets: Sequence[str | Target] = (),
    calibration: str | None = None,
    evaluation: str | None = None,
    labels: str | None = None,
    slices: str | None = None,
    output: Path | None = None,
    trust_code: bool = False,
    compiler_via: str | None = None,
    use_cache: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Convert again as a record says; latency is not measured.

    A record may come from a stranger: to run code that the model carries, or to send the model to a machine,
    takes the caller's word, whatever it says.

    Args:
        recorded: a ``record.json``, or a bundle, which holds one.
        source: the model that was converted; by default the file of its name beside the record.
        targets: profiles of recorded targets that no name leads to here, as ``convert`` takes them.
        calibration: where the calibration data are now; by default where they were.
        evaluation: where the evaluation data are now.
        labels: where their labels are now, of a file or key of its own.
        slices: where what parts them is now.
        output: where to write the new bundle; by default nowhere.
        trust_code: let the model run the code that it carries (Keras Lambda layers).
        compiler_via: URL of the machine that has the Edge TPU compiler; by default this one.
        use_cache: take steps that were done before from the cache.
        progress: is called with what is being done.

    Raises:
        MessageError: not a record.
        ModelFileError: the model is missing, or another than was converted.
        DataError: data that cannot be used.
        UsageError: a target that is not known here, or was none of the conversion's; data for what had none.
    """
    then = read_record(recorded)
    model = source or recorded.parent / then.source.path
    _check_model(model, then.source.sha256)
    options, gates = then.options, then.options.gates
    result = convert(
        model,
        targets=_targets(options.targets, targets),
        schemes=AUTO if options.searches else options.schemes,
        runtimes=options.runtimes,
        calibration=_data(options.calibration, source=calibration),
        evaluation=_data(options.evaluation, source=evaluation, labels=labels, slices=slices),
        metric=options.metric,
        golden=options.golden,
        preprocess=options.preprocess,
        postprocess=options.postprocess,
        label_names=options.label_names,
        health=options.health,
        name=options.name,
        release=options.release,
        measure=False,
        io_dtype=options.io_dtype,
        method=options.method,
        input_shapes=options.input_shapes,
        trust_code=trust_code,
        accuracy_control=options.accuracy_control,
        compile_edgetpu=compiler_via or options.compiles,
        objective="size" if options.objective == "size" else "latency",
        sparsity=options.sparsity,
        budget_s=then.budget_s,
        max_drop=gates.max_drop,
        max_size_bytes=gates.max_size_bytes,
        max_slice_drop=gates.max_slice_drop,
        drift_reference=options.drift_reference,
        output=output,
        use_cache=use_cache,
        progress=progress,
    )
    return Reproduction(result, _compared(then, result), (*_tools(then), *_other_data(then, result)))


def _check_model(model: Path, sha256: str) -> None:
    if not model.exists():
        raise ModelFileError(f"{model}, the model that was converted, is not there: give it with --model")
    found = hash_tree(model)
    if found != sha256:
        raise ModelFileError(
            f"{model} is not the model that was converted: its sha256 is {found[:16]}…, "
            f"recorded is {sha256[:16]}…"
        )


def _targets(recorded: Sequence[str], given: Sequence[str | Target]) -> tuple[Target, ...]:
    """Give the profiles of recorded targets: as given, as their names say, or this machine's.

    A name in a stranger's record leads to no file. A machine of no known class is recorded by its
    architecture, which is no target's name.

    Raises:
        UsageError: one was given that was not asked for, or one that was is not known here.
    """
    own = {one.name: one for one in (read_targets(given) if given else ())}
    for name in own:
        if name not in recorded:
            raise UsageError(f"--target {name}: the recorded conversion was for {', '.join(recorded)}")
    here = host()
    found = []
    for name in recorded:
        known = own.get(name) or named_target(name) or (here if here.name == name else None)
        if known is None:
            raise UsageError(
                f"the recorded conversion was for {name!r}, which is no target here: give its profile, "
                "a file of that name, with --target FILE.toml"
            )
        found.append(known)
    return tuple(found)


def _data(declared: DataDeclaration | None, **places: str | None) -> DataDeclaration | None:
    """Take data as they were declared, what is given from where it is now.

    Raises:
        UsageError: data were given for what had none.
    """
    given: dict[str, Any] = {name: place for name, place in places.items() if place is not None}
    for name, place in given.items():
        if getattr(declared, name, None) is None:
            raise UsageError(f"{place}: the recorded conversion had no such data")
    return None if declared is None else replace(declared, **given)


def _compared(then: Record, result: ConvertResult) -> tuple[VariantAgain, ...]:
    rows = {row.name: row for row in result.rows}
    found = []
    for old in then.variants:
        if old.status not in {"ok", "gate"}:
            continue
        row = rows.get(old.name)
        if row is None or row.status not in {"ok", "gate"}:
            reason = "it is not asked for any more" if row is None else row.told
            found.append(VariantAgain(old.name, (f"not made: {reason}",)))
            continue
        differences = []
        if old.sha256 != row.sha256:
            differences.append(f"other bytes: {old.size_bytes} then, {row.size_bytes} now")
        if old.accuracy != row.measured.accuracy:
            differences.append(f"accuracy {old.accuracy} then, {row.measured.accuracy} now")
        found.append(VariantAgain(old.name, tuple(differences)))
    return tuple(found)


def _tools(then: Record) -> list[str]:
    now = tool_versions()
    return [
        f"{name} was {version}, is {now.get(name, 'not installed')}"
        for name, version in then.tools.items()
        if now.get(name) != version
    ]


def _other_data(then: Record, result: ConvertResult) -> list[str]:
    data = result.outcome.data
    now = {one.role: one for one in (data.calibration, data.evaluation) if one is not None}
    return [
        f"the {old.role} data are others: {old.count} samples then, {now[old.role].count} now"
        for old in then.data
        if old.role in now and now[old.role].sha256 != old.sha256
    ]
