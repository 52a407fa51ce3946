"""Real models and their data as the quantizers' tests take them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.converter import ConversionStep, QuantizerSettings, StepRequest, StepResult


@dataclass(frozen=True)
class Samples:
    """Calibration data in memory, or made one at a time by ``make``."""

    name: str
    arrays: Sequence[Array]
    sha256: str = "not used by steps"

    def __len__(self) -> int:
        return len(self.arrays)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return ({self.name: array} for array in self.arrays)


@dataclass(frozen=True)
class Images:
    """MobileNetV2's 500 images, repeated up to ``count``, read from their files one at a time."""

    files: tuple[Path, ...]
    count: int
    sha256: str = "not used by steps"

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return ({"input": image(self.files[place % len(self.files)])} for place in range(self.count))


@dataclass(frozen=True)
class Task:
    """Calibration samples, evaluation inputs [1, …] each, and labels (index of the output)."""

    calibration: Samples
    evaluation: Sequence[Array]
    labels: Array


@cache
def kws(data: Path) -> Task:
    held = np.load(data / "kws" / "data.npz")

    def real(stored: Array) -> list[Array]:
        values = (stored.astype(np.float32) - np.float32(held["zero_point"])) * held["scale"]
        return [item[None] for item in values.astype(np.float32)]

    return Task(Samples("input_1", real(held["calib_q"])), real(held["test_q"]), held["test_y"])


@cache
def ic(data: Path) -> Task:
    held = np.load(data / "ic" / "data.npz")
    real = [[item[None].astype(np.float32) for item in held[part]] for part in ("calib", "test")]
    return Task(Samples("input_1", real[0]), real[1], held["test_y"])


@cache
def vww(data: Path) -> Task:
    held = np.load(data / "vww" / "data.npz")
    real = [
        [item[None].astype(np.float32) / np.float32(255) for item in held[part]] for part in ("calib", "test")
    ]
    return Task(Samples("input_1", real[0]), real[1], np.zeros(len(real[1]), np.int64))


@cache
def mobilenet(data: Path) -> Task:
    rows = mobilenet_rows(data)
    calibration = Samples("input", [image(path) for path, index in rows if index % 20 == 0])
    evaluation = [(image(path), index + 1) for path, index in rows if index % 20]
    return Task(calibration, [item for item, _ in evaluation], np.array([label for _, label in evaluation]))


@cache
def face(data: Path) -> Task:
    pictures = [
        image(data / "face" / "images" / f"{number}.jpg", size=(320, 240), middle=127.0, half=128.0)
        for number in range(1, 7)
    ]
    return Task(Samples("input", pictures), pictures, np.zeros(6, np.int64))


def mobilenet_rows(data: Path) -> list[tuple[Path, int]]:
    with (data / "mobilenet" / "labels.csv").open() as file:
        return [
            (data / "mobilenet" / "images" / row["file"], int(row["class_index"]))
            for row in csv.DictReader(file)
        ]


def image(
    path: Path, size: tuple[int, int] | None = None, middle: float = 127.5, half: float = 127.5
) -> Array:
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
        values = np.asarray(picture.resize(size) if size else picture, np.float32)
    return np.ascontiguousarray(((values - middle) / half).transpose(2, 0, 1)[None], np.float32)


def step(name: str) -> ConversionStep:
    return next(item for item in plugins.conversion_steps() if item.name == name)


def run_step(name: str, source: Path, folder: Path, samples: object = None, **settings: object) -> StepResult:
    folder.mkdir(exist_ok=True)
    request = StepRequest(
        source,
        folder,
        calibration=samples,  # type: ignore[arg-type]
        settings=QuantizerSettings(**settings),  # type: ignore[arg-type]
    )
    return step(name).run(request)


def outputs(runtime: str, artifact: Path, inputs: Sequence[Array]) -> dict[str, Array]:
    """Give each output over all inputs, stacked."""
    with plugins.runtime(runtime).load(artifact) as session:
        name = session.inputs[0].name
        found = [session.run({name: item}) for item in inputs]
    return {key: np.concatenate([item[key] for item in found]) for key in found[0]}


def only(found: dict[str, Array]) -> Array:
    (value,) = found.values()
    return value


def sqnr(reference: Array, value: Array) -> float:
    wanted = reference.astype(np.float64)
    noise = float(((wanted - value) ** 2).sum())
    return float(10 * np.log10((wanted**2).sum() / noise)) if noise else float("inf")


def top1(scores: Array, labels: Array) -> float:
    return float((scores.argmax(1) == labels).mean())


def shuffled(samples: Samples) -> Samples:
    order = np.random.default_rng(7).permutation(len(samples))
    return Samples(samples.name, [samples.arrays[place] for place in order])


MakeTask = Callable[[Path], Task]
