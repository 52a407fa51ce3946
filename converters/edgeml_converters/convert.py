"""``convert``: from a trained model to a bundle and a report, as one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args

from edgeml.converter import CalibrationMethod
from edgeml.errors import ConversionError, GateError, UsageError
from edgeml.findings import Finding
from edgeml.health import HealthPolicy
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.targets import HOST, Target
from edgeml.tensors import Shape
from edgeml.words import RUNTIMES, IoDtype
from edgeml_converters.arguments import (
    DataArgument,
    Declared,
    read_compiler_place,
    read_data,
    read_health,
    read_names,
    read_place,
    read_postprocess,
    read_preprocess,
    read_schemes,
    read_targets,
    read_threads,
    read_word,
)
from edgeml_converters.report.bundle import bundle_name, places, write, write_text
from edgeml_converters.report.page import render
from edgeml_converters.report.record import document
from edgeml_converters.search.choose import Choice
from edgeml_converters.search.conversion import run
from edgeml_converters.search.objective import GOALS
from edgeml_converters.search.outcome import Outcome
from edgeml_converters.variants.gates import Gates, Objective
from edgeml_converters.variants.request import AUTO, Request
from edgeml_converters.variants.rows import Row
from edgeml_converters.variants.workspace import workspace

NO_SHAPES: Final[Mapping[str, Shape]] = {}


@dataclass(frozen=True, slots=True, repr=False)
class ConvertResult:
    """What ``convert`` gives."""

    outcome: Outcome
    bundle: Path | None
    """``None``: no variant was usable, or no output was asked for."""
    report: Path | None

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every variant that was asked for, with its status."""
        return self.outcome.rows

    @property
    def variants(self) -> tuple[Row, ...]:
        """The rows that became variants of the bundle."""
        return tuple(row for row in self.rows if row.status == "ok")

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The best variant of each target, and why."""
        return self.outcome.choices

    def __repr__(self) -> str:
        """Render what was chosen, in one line."""
        chosen = ", ".join(f"{one.variant or 'nothing'} for {one.target}" for one in self.choices)
        made = f"{len(self.variants)} of {len(self.rows)} variants"
        return f"<ConvertResult: {made}, {chosen}; bundle {self.bundle}>"

    def to_json(self) -> dict[str, Any]:
        """Give the document that ``edgeml convert --json`` prints."""
        return document(
            self.outcome,
            str(self.bundle) if self.bundle is not None else None,
            str(self.report) if self.report is not None else None,
        )

    def require_variants(self) -> None:
        """Raise if a target is without a variant.

        Raises:
            ConversionError: no variant could be made for a target; names each reason.
            GateError: variants were made, and none holds the gates.
        """
        empty = [choice for choice in self.choices if choice.variant is None]
        broken = [f"{choice.target}: {choice.reason}" for choice in empty if not choice.gated]
        if broken:
            raise ConversionError("\n".join(broken))
        if empty:
            raise GateError("\n".join(f"{choice.target}: {choice.reason}" for choice in empty))


def convert(
    source: Path | str | object,
    *,
    targets: str | Target | Sequence[str | Target] = (HOST,),
    schemes: str | Sequence[str] = (),
    runtimes: str | Sequence[str] | None = None,
    calibration: DataArgument = None,
    evaluation: DataArgument = None,
    metric: str | None = None,
    golden: int = 8,
    preprocess: Preprocess | Declared | None = None,
    postprocess: Postprocess | Declared | None = None,
    label_names: Sequence[str] = (),
    health: HealthPolicy | Mapping[str, Any] | None = None,
    output: Path | str | None = None,
    name: str = "",
    release: int = 1,
    objective: Objective = "latency",
    max_drop: float | None = None,
    max_latency_ms: float | None = None,
    max_size_bytes: int | None = None,
    max_slice_drop: float | None = None,
    measure: bool | str = True,
    threads: int | Sequence[int] = 1,
    resume: bool = False,
    io_dtype: IoDtype | None = None,
    method: CalibrationMethod = "default",
    compile_edgetpu: bool | str = True,
    input_shapes: Mapping[str, Shape] = NO_SHAPES,
    example_inputs: object = (),
    trust_code: bool = False,
    accuracy_control: bool = True,
    budget_s: float = 180.0,
    jobs: int | None = None,
    sparsity: float | None = None,
    drift_reference: bool = True,
    use_cache: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> ConvertResult:
    """Convert a model for targets, measure every variant, and write the bundle and its report.

    Args:
        source: a model file or folder; a ``torch.nn.Module`` (with ``example_inputs``); a fitted
            scikit-learn estimator (with ``example_inputs``).
        targets: names, paths of TOML files, or profiles; this machine by default.
        schemes: of ``words.SCHEMES``, ``all``, or ``auto`` for those that may be best; by default float32,
            and int8_static with calibration data.
        runtimes: by default all that the targets have.
        calibration: data for static quantization: a source as ``edgeml.data.open_data`` takes it, a
            declaration, or an array [N,…].
        evaluation: labelled data that accuracy is measured on, the same way; arrays as ``(samples, labels)``.
        metric: ``top1``, ``top5``, ``auc``, ``mse``, ``mae`` or ``module:function``.
        golden: how many golden samples go into the bundle.
        preprocess: how a raw sample becomes an input: declared, ``"scale=1/255 layout=nchw"``, or a dict.
        postprocess: how the outputs become a prediction, declared the same ways.
        label_names: class names by index.
        health: when a release is sound on a device, or its keys (docs/reference/bundle.md).
        output: a folder, or ``NAME.edgeml``; nothing is written without it.
        name: the bundle's; made from the source's file or class by default.
        release: the bundle's counter.
        objective: what the variant chosen for a target has least of: ``latency``, ``size`` or ``memory``.
        max_drop: gate: points of accuracy that a variant may lose.
        max_latency_ms: gate: median latency.
        max_size_bytes: gate: size of a variant.
        max_slice_drop: gate: points of accuracy that the worst class may lose.
        measure: take latency, load time and memory, in a fresh process each; the URL of a machine: there.
        threads: engine threads to measure with; of several the fewest within 5 % of the quickest are kept.
        resume: take latencies that an earlier run measured within a day, on the same machine.
        io_dtype: dtype of inputs and outputs of int8_static variants; by default float32, and int8 for the
            Edge TPU.
        method: how static quantization finds its ranges.
        compile_edgetpu: have int8 variants compiled for targets with an Edge TPU, if Coral's compiler is
            here; the URL of a machine that has it: there.
        input_shapes: sizes of free dimensions, by input name.
        example_inputs: for objects: one array or tensor, or a sequence, each with its batch dimension.
        trust_code: let a file run the code that it carries (Keras Lambda layers).
        accuracy_control: where static int8 loses more than allowed, make a variant with parts in float.
        budget_s: time in which accuracy control may begin trials.
        jobs: runtimes that ``auto`` makes variants for at once, a process each; as many as there are cores.
        sparsity: share of weights that are 0, of int8_static variants besides the others, where the runtime
            gains by it; ``auto`` looks for the best where the objective or a gate is size.
        drift_reference: put into the bundle what the evaluation data look like, else the calibration data:
            devices and servers tell drift by it.
        use_cache: take steps that were done, and evaluations that were made, before from the cache.
        progress: is called with what is being done.

    Raises:
        UsageError: an unknown target, scheme, runtime or metric, a number that is none or makes no sense, or
            ``resume`` without the cache.
        ModelFileError: the source is damaged or foreign.
        DataError: data that cannot be used.
        BundleError: the output cannot be written.
    """
    if resume and not use_cache:
        raise UsageError(
            "to resume is to take what an earlier run left in the cache: resume or no cache, not both"
        )
    with workspace(use_cache=use_cache, progress=progress) as space:
        scratch = space.scratch
        path = _as_file(source, scratch, example_inputs)
        request = Request(
            source=path,
            targets=read_targets(targets),
            schemes=read_schemes(schemes),
            searches=AUTO in schemes,
            runtimes=read_names("runtime", runtimes or (), RUNTIMES),
            calibration=read_data("calibration", calibration, scratch),
            evaluation=read_data("evaluation", evaluation, scratch),
            metric=metric,
            golden=golden,
            preprocess=read_preprocess(preprocess),
            postprocess=read_postprocess(postprocess),
            label_names=tuple(label_names),
            health=read_health(health),
            name=bundle_name(name, path if isinstance(source, (str, Path)) else Path(type(source).__name__)),
            release=release,
            objective=read_word("objective", objective, GOALS),
            gates=Gates(max_drop, max_latency_ms, max_size_bytes, max_slice_drop),
            measure=bool(measure),
            threads=read_threads(threads),
            resumes=resume,
            measure_on=read_place(measure),
            io_dtype=None if io_dtype is None else read_word("io_dtype", io_dtype, get_args(IoDtype)),
            method=read_word("method", method, get_args(CalibrationMethod)),
            compiles=bool(compile_edgetpu),
            compiler_via=read_compiler_place(compile_edgetpu),
            input_shapes=input_shapes,
            trust_code=trust_code,
            accuracy_control=accuracy_control,
            budget_s=budget_s,
            jobs=len(os.sched_getaffinity(0)) if jobs is None else jobs,
            sparsity=sparsity,
            drift_reference=drift_reference,
        )
        place = places(Path(output), request.name, release) if output is not None else None
        outcome = run(request, space)
        if place is None:
            return ConvertResult(_without_scratch(outcome), None, None)
        progress("write the bundle and the report")
        outcome = _with_leftover(outcome, place.bundle)
        page = render(outcome, place.bundle.name)
        manifest = write(outcome, request.name, release, place.bundle, scratch)
        write_text(place.report, page)
        bundle = place.bundle if manifest is not None else None
        return ConvertResult(_without_scratch(outcome), bundle, place.report)


def _with_leftover(outcome: Outcome, bundle: Path) -> Outcome:
    """Tell of a bundle that stands in the output from before and that this run does not replace."""
    if any(row.status == "ok" for row in outcome.rows) or not bundle.exists():
        return outcome
    left = Finding(
        "bundle-of-an-earlier-run",
        "warning",
        bundle.name,
        "no variant of this run can be used, and the bundle that stands there comes from an earlier run",
        "do not take it for this run's; remove it, or write to another --output",
    )
    return replace(outcome, findings=(*outcome.findings, left))


def _without_scratch(outcome: Outcome) -> Outcome:
    """Forget the paths of files that go with the scratch folder."""
    return replace(
        outcome, rows=tuple(replace(row, artifact=None, golden=None, fallback=None) for row in outcome.rows)
    )


def _as_file(source: object, scratch: Path, example_inputs: object) -> Path:
    if isinstance(source, (str, Path)):
        return Path(source)
    from edgeml_converters.formats.objects import export_object

    return export_object(source, example_inputs, scratch)
