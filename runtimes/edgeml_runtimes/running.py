"""Runs a model on samples: what ``edgeml run`` does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml import plugins
from edgeml.bundle import Bundle, open_bundle
from edgeml.data import (
    Dataset,
    open_data,
    parse_postprocess,
    parse_preprocess,
    read_data_config,
)
from edgeml.data.reader import combined_sha256, file_sha256
from edgeml.errors import EngineError, UsageError
from edgeml.pipeline import Prediction, finish
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.tensors import Array, TensorSpec, dequantize
from edgeml_runtimes.jobs import chosen_variants, is_bundle, runtime_of

if TYPE_CHECKING:
    from edgeml.manifest import Variant
    from edgeml.runtime import Session


@dataclass(frozen=True, slots=True)
class Chosen:
    """A loaded model with what is done before and after it."""

    title: str
    runtime: str
    variant: str | None
    session: Session
    sha256: str
    """Of the artifact and the engine's options."""
    preprocess: Preprocess
    postprocess: Postprocess
    labels: tuple[str, ...]

    def data(self, source: str, limit: int | None) -> Dataset:
        """Open samples for the model; raises as ``edgeml.data.open_data``."""
        return open_data(source, inputs=self.session.inputs, preprocess=self.preprocess, limit=limit)

    def fingerprint(self, dataset: Dataset) -> str:
        """Hash everything that decides the results."""
        return combined_sha256([self.sha256, dataset.sha256, asdict(self.postprocess), self.labels])


@contextmanager
def opened(
    path: Path,
    *,
    variant: str | None,
    runtime: str | None,
    options: Mapping[str, str],
    config: Path | None,
    preprocess: Sequence[str],
    postprocess: Sequence[str],
) -> Iterator[Chosen]:
    """Load a model file or a bundle's variant, with its declared processing and the caller's over it."""
    before, after = Preprocess(), Postprocess()
    labels: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="edgeml-run-") as folder:
        artifact, name, settings = path, None, dict(options)
        if is_bundle(path):
            bundle = open_bundle(path)
            picked = _pick(bundle, variant, runtime)
            before, after = bundle.manifest.preprocess, bundle.manifest.postprocess
            labels = _labels(bundle)
            bundle.extract(Path(folder) / "variant", [entry.path for entry in picked.files])
            artifact = Path(folder) / "variant" / picked.files[0].path
            name, runtime, settings = picked.name, picked.runtime, {**picked.options, **options}
        elif variant is not None:
            raise UsageError(f"{path} is a model file and has no variants; leave --variant out")
        if config is not None:
            declared = read_data_config(config)
            before, after = declared.preprocess, declared.postprocess
            labels = declared.label_names or labels
        driver = plugins.runtime(runtime or runtime_of(artifact))
        with driver.load(artifact, driver.options(settings)) as session:
            yield Chosen(
                title=path.name,
                runtime=driver.name,
                variant=name,
                session=session,
                sha256=combined_sha256([file_sha256(artifact), driver.name, driver.version, settings]),
                preprocess=parse_preprocess(preprocess, before),
                postprocess=parse_postprocess(postprocess, after),
                labels=labels,
            )


def predictions(chosen: Chosen, dataset: Dataset, skip: int) -> Iterator[tuple[str, Prediction]]:
    """Give name and prediction of each sample after the first ``skip``."""
    for position, sample in enumerate(dataset):
        if position >= skip:
            outputs = _floats(chosen.session.outputs, chosen.session.run(sample))
            yield dataset.name_of(position), finish(outputs, chosen.postprocess, chosen.labels)


def _floats(specs: tuple[TensorSpec, ...], outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Dequantize what came back as stored, because the sample was stored integers."""
    return {
        spec.name: dequantize(outputs[spec.name], spec.quantization)
        if spec.quantization is not None and outputs[spec.name].dtype.kind in "iu"
        else outputs[spec.name]
        for spec in specs
    }


def _pick(bundle: Bundle, name: str | None, runtime: str | None) -> Variant:
    """Give the variant asked for, else the one measured quickest of those whose engine is installed."""
    candidates = chosen_variants(bundle, [name] if name else [], runtime)
    missing: list[str] = []
    for variant in sorted(candidates, key=_measured_p50):
        try:
            plugins.runtime(variant.runtime)
        except (EngineError, UsageError) as error:
            missing.append(str(error))
        else:
            return variant
    raise EngineError(f"{bundle.path}: no variant can run here: {'; '.join(sorted(set(missing)))}")


def _measured_p50(variant: Variant) -> float:
    latency = variant.measured.latency_ms
    return float("inf") if latency is None else latency.p50


def _labels(bundle: Bundle) -> tuple[str, ...]:
    if bundle.manifest.labels is None:
        return ()
    text = bundle.read(bundle.manifest.labels).decode(errors="replace")
    return tuple(line.strip() for line in text.rstrip().splitlines())
