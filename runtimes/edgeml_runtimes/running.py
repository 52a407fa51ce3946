"""Runs a model on samples: what ``edgeml run`` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeml import plugins
from edgeml.data import (
    Dataset,
    open_data,
    parse_postprocess,
    parse_preprocess,
    read_data_config,
)
from edgeml.data.reader import combined_sha256, file_sha256
from edgeml.installed import open_release
from edgeml.loading import load
from edgeml.model import Model
from edgeml.pipeline import Prediction, finish
from edgeml.preprocess import Postprocess, Preprocess


@dataclass(frozen=True, slots=True)
class Chosen:
    """A loaded model with what is done before and after it."""

    title: str
    model: Model
    sha256: str
    """Of the artifact and the engine with its options."""
    preprocess: Preprocess
    postprocess: Postprocess
    labels: tuple[str, ...]
    raw: bool = False
    """Neither is done: arrays are as the model takes and gives them."""

    def data(self, source: str, limit: int | None) -> Dataset:
        """Open samples for the model; raises as ``edgeml.data.open_data``."""
        return open_data(source, inputs=self.model.spec.inputs, preprocess=self.preprocess, limit=limit)

    def fingerprint(self, dataset: Dataset) -> str:
        """Hash everything that decides the results."""
        return combined_sha256([self.sha256, dataset.sha256, asdict(self.postprocess), self.labels, self.raw])


@contextmanager
def opened(
    source: str,
    *,
    variant: str | None,
    runtime: str | None,
    options: Mapping[str, str],
    config: Path | None,
    preprocess: Sequence[str],
    postprocess: Sequence[str],
    raw: bool = False,
) -> Iterator[Chosen]:
    """Load what ``edgeml.load`` loads, with its declared processing and the caller's over it."""
    # one release from the first sample to the last
    with load(source, runtime=runtime, variant=variant, options=options, follow=False) as model:
        spec = model.spec
        before, after, labels = spec.preprocess, spec.postprocess, spec.labels
        if config is not None:
            declared = read_data_config(config)
            before, after = declared.preprocess, declared.postprocess
            labels = declared.label_names or labels
        if raw:
            before, after = Preprocess(), Postprocess()
        engine = [model.runtime, plugins.runtime(model.runtime).version, dict(options)]
        yield Chosen(
            title=model.name,
            model=model,
            sha256=combined_sha256([_content(Path(source), model), *engine]),
            preprocess=parse_preprocess(preprocess, before),
            postprocess=parse_postprocess(postprocess, after),
            labels=labels,
            raw=raw,
        )


def _content(path: Path, model: Model) -> list[str]:
    """Give what tells this artifact from any other: its hash, or which variant of which release it is."""
    if model.variant is None:
        return [file_sha256(path)]
    if not path.exists():
        return [model.name, str(model.release), model.variant]
    variants = open_release(path).manifest.variants
    return [entry.sha256 for one in variants if one.name == model.variant for entry in one.files]


def predictions(chosen: Chosen, dataset: Dataset, skip: int) -> Iterator[tuple[str, Prediction]]:
    """Give name and prediction of each sample after the first ``skip``."""
    for position, sample in enumerate(dataset):
        if position >= skip:
            name, outputs = dataset.name_of(position), chosen.model.run(sample)
            if chosen.raw:
                yield name, Prediction(outputs)
            else:
                real = chosen.model.dequantized(outputs)
                yield name, finish(real, chosen.postprocess, chosen.labels)
