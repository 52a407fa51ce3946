"""From a raw sample to a model's input, and from its outputs to a prediction.

Calibration, evaluation and the device run this same code. Images are resized by Pillow, which is
imported only when a declaration asks for a resize or for grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from edgeml.arrays import Array
from edgeml.errors import EngineMissingError, InputShapeError, UsageError
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.tensors import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES_HINT: Final = "needs Pillow, which is not installed. Install it: pip install 'edgeml-core[images]'"
IMAGE_RANK: Final = 3
CHANNELS: Final = frozenset({1, 3, 4})
"""Sizes of a last axis that make an array [H,W,C] an image: grey, RGB, RGB with alpha."""

_COLORS: Final = {1: "color=gray", 3: "color=rgb"}


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of a classifier's answer."""

    index: int
    """Class, with ``label_offset`` taken off; -1 for a background at output 0."""
    label: str | None
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one sample."""

    outputs: Mapping[str, Array]
    """Every output; the one that ``softmax`` applies to after softmax."""
    classes: tuple[ClassScore, ...] = ()
    """The best ``top`` classes, best first; empty unless ``argmax`` or ``top`` was declared."""

    @property
    def best(self) -> ClassScore:
        """The best class.

        Raises:
            UsageError: no ``argmax`` was declared.
        """
        if not self.classes:
            raise UsageError("this model declares no classes: set argmax in its post-processing")
        return self.classes[0]

    @property
    def index(self) -> int:
        """The best class's index."""
        return self.best.index

    @property
    def label(self) -> str | None:
        """The best class's label; ``None`` if the bundle has no labels."""
        return self.best.label

    @property
    def score(self) -> float:
        """The best class's score."""
        return self.best.score


def prepare(raw: Array, preprocess: Preprocess, spec: TensorSpec) -> Array:
    """Make one sample the value of input ``spec``.

    An image (uint8 [H,W] or [H,W,C] with C of 1, 3 or 4) goes through the whole declaration. Any
    other array that has the input's shape already, with or without the batch dimension, gets only
    its values and dtype set; one that has not is treated as an image too.

    Of a model with several inputs each goes through the same declaration.

    Args:
        raw: one sample, with or without a batch dimension of 1.
        preprocess: the declaration.
        spec: the input it is meant for; free dimensions fit any size.

    Returns:
        A C-contiguous array of the input's rank, batch dimension included.

    Raises:
        InputShapeError: what comes out does not have the input's shape.
        UsageError: the declaration does not fit the sample (two means for three channels, say).
        EngineMissingError: Pillow is needed and not installed.
    """
    # what overflows becomes infinite, which the lints of data report
    with np.errstate(over="ignore", invalid="ignore"):
        return _prepare(np.asarray(raw), preprocess, spec)


def _prepare(array: Array, preprocess: Preprocess, spec: TensorSpec) -> Array:
    fitted = None if _is_image(array, spec) else _fit(array, spec, preprocess.layout)
    if fitted is None:
        image = _as_image(array, preprocess, spec)
        image = _values(_geometry(image, preprocess), preprocess, channel_axis=-1)
        if preprocess.layout == "nchw":
            image = np.moveaxis(image, -1, 0)
        fitted = _fit(image, spec, preprocess.layout)
        if fitted is None:
            reject_shape(spec, image, preprocess)
    else:
        fitted = _values(fitted, preprocess, channel_axis=1 if preprocess.layout == "nchw" else -1)
    return np.ascontiguousarray(_cast(fitted, array.dtype, preprocess, spec))


def finish(outputs: Mapping[str, Array], postprocess: Postprocess, labels: Sequence[str] = ()) -> Prediction:
    """Make one sample's outputs a prediction.

    Args:
        outputs: output name to array with a batch dimension of 1, dequantized.
        postprocess: the declaration.
        labels: class names by class index; may be empty.

    Raises:
        UsageError: the declaration names an output that is not there, or ``argmax`` is declared
            for an output that is not one vector of scores.
    """
    wants_classes = postprocess.argmax or postprocess.top > 1
    if not (postprocess.softmax or wants_classes):
        return Prediction(dict(outputs))
    name = _output_name(outputs, postprocess)
    scores = np.asarray(outputs[name])
    if postprocess.softmax:
        scores = softmax(scores)
    shown = {**outputs, name: scores}
    if not wants_classes:
        return Prediction(shown)
    if scores.size == 0 or scores.size != max(scores.shape, default=1):
        raise UsageError(
            f"argmax needs one vector of scores, output {name!r} has shape {scores.shape}; "
            "name another with postprocess.output"
        )
    return Prediction(shown, _best_classes(scores.ravel(), postprocess, labels))


def softmax(scores: Array) -> NDArray[np.float32]:
    """Exponentiate and normalise along the last axis, in float32, without overflow."""
    values = np.asarray(scores, np.float32)
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def reject_shape(spec: TensorSpec, given: Array, preprocess: Preprocess) -> NoReturn:
    """Raise the InputShapeError for a sample that came out as ``given``; says what to declare."""
    sides = spec.shape[1:]
    wanted = "(" + ", ".join("any" if side is None else str(side) for side in sides) + ")"
    text = f"input {spec.name!r}: a sample gives {given.shape}, the model takes {wanted} and the batch"
    if given.ndim == len(sides) == IMAGE_RANK:
        raise InputShapeError(f"{text}: {_image_remedy(given, sides, preprocess)}")
    if given.ndim == len(spec.shape) and given.shape[0] != 1 and _sides_fit(given.shape[1:], sides):
        raise InputShapeError(f"{text}: this is a batch of {given.shape[0]}; pass one sample at a time")
    raise InputShapeError(text)


def _image_remedy(got: Array, sides: tuple[int | None, ...], preprocess: Preprocess) -> str:
    """Name everything that has to be declared at once; nothing for what is no image of this model's."""
    planar = preprocess.layout == "nchw"
    wants_planar = sides[0] in CHANNELS if sides[2] not in CHANNELS else planar and sides[0] in CHANNELS
    height, width, channels = (*got.shape[1:], got.shape[0]) if planar else got.shape
    size, wanted = (sides[1:], sides[0]) if wants_planar else (sides[:2], sides[2])
    if channels not in CHANNELS:
        first = got.shape[0] in CHANNELS and wanted in {None, got.shape[0]}
        told = "the sample has its channels first, pre-processing takes [H,W,C]"
        return told if first else "these data are not this model's"
    hints = []
    if planar != wants_planar:
        hints.append("layout=nchw" if wants_planar else "layout=nhwc")
    if wanted not in {None, channels}:
        if got.dtype != np.uint8 or wanted not in _COLORS:
            return f"the model takes {wanted} channels, these data have {channels}: they are not this model's"
        hints.append(_COLORS[wanted])
    if not _sides_fit((height, width), size):
        known = f"resize={size[0]}" if size[0] == size[1] else f"resize={size[0]}x{size[1]}"
        hints.append("resize=HEIGHTxWIDTH" if None in size else known)
    return f"declare {' '.join(hints)}" + (" (or resize and crop)" if "resize" in hints[-1] else "")


def _is_image(array: Array, spec: TensorSpec) -> bool:
    if array.dtype != np.uint8 or len(spec.shape) != IMAGE_RANK + 1:
        return False
    return array.ndim == IMAGE_RANK - 1 or (array.ndim == IMAGE_RANK and array.shape[-1] in CHANNELS)


def _sides_fit(got: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(got) == len(wanted) and all(w is None or w == g for w, g in zip(wanted, got, strict=True))


def _fit(array: Array, spec: TensorSpec, layout: str | None) -> Array | None:
    """Give the array the input's rank by adding axes of 1, or ``None`` where its sizes do not fit."""
    if len(array.shape) == len(spec.shape) and _sides_fit(array.shape[1:], spec.shape[1:]):
        return array if spec.shape[:1] in ((None,), array.shape[:1]) else None
    if _sides_fit(array.shape, spec.shape[1:]):
        return array[None]
    if len(spec.shape) == IMAGE_RANK + 1 and array.ndim == IMAGE_RANK - 1:
        flat = array[None] if layout == "nchw" else array[..., None]
        return flat[None] if _sides_fit(flat.shape, spec.shape[1:]) else None
    return None


def _as_image(array: Array, preprocess: Preprocess, spec: TensorSpec) -> Array:
    image = array[0] if array.ndim == IMAGE_RANK + 1 and array.shape[0] == 1 else array
    if len(spec.shape) != IMAGE_RANK + 1:
        reject_shape(spec, array, preprocess)
    if image.ndim == IMAGE_RANK - 1:
        return image[..., None]
    if image.ndim != IMAGE_RANK or image.shape[-1] not in CHANNELS:
        reject_shape(spec, array, preprocess)
    return image


def _geometry(image: Array, preprocess: Preprocess) -> Array:
    """Colour, resize and crop an image [H,W,C]."""
    image = _colour(image, preprocess.color)
    if preprocess.resize is not None:
        size = preprocess.resize
        if preprocess.crop is not None:
            size = _short_side(image.shape[:2], min(preprocess.resize))
        image = _resize(image, size, preprocess.interpolation)
    return image if preprocess.crop is None else _crop(image, preprocess.crop)


def _colour(image: Array, color: str | None) -> Array:
    channels = image.shape[-1]
    if color is None:
        return image
    if color == "gray":
        return image if channels == 1 else _grey(image[..., :3])
    rgb = np.repeat(image, 3, axis=-1) if channels == 1 else image[..., :3]
    return rgb[..., ::-1] if color == "bgr" else rgb


def _grey(image: Array) -> Array:
    # ITU-R 601 luma in Pillow's fixed point, so that grey files and grey arrays come out alike.
    if image.dtype == np.uint8:
        weighted = image.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
        return np.asarray(((weighted + 0x8000) >> 16).astype(np.uint8)[..., None])
    return np.asarray((image @ np.array([0.299, 0.587, 0.114], image.dtype))[..., None])


def _short_side(size: tuple[int, ...], short: int) -> tuple[int, int]:
    height, width = size
    if height <= width:
        return short, max(short, round(width * short / height))
    return max(short, round(height * short / width)), short


def _resize(image: Array, size: tuple[int, int], interpolation: str) -> Array:
    if image.shape[:2] == size:
        return image
    pillow = import_pillow("resize")
    resample = {
        "bilinear": pillow.Resampling.BILINEAR,
        "nearest": pillow.Resampling.NEAREST,
        "bicubic": pillow.Resampling.BICUBIC,
    }[interpolation]
    if image.dtype == np.uint8 and image.shape[-1] == IMAGE_RANK:
        return np.asarray(pillow.fromarray(np.ascontiguousarray(image)).resize(size[::-1], resample))
    planes = [
        np.asarray(pillow.fromarray(_plane(image[..., channel])).resize(size[::-1], resample))
        for channel in range(image.shape[-1])
    ]
    return np.stack(planes, axis=-1)


def _plane(plane: Array) -> Array:
    return np.ascontiguousarray(plane if plane.dtype == np.uint8 else plane.astype(np.float32))


def _crop(image: Array, size: tuple[int, int]) -> Array:
    height, width = size
    if image.shape[0] < height or image.shape[1] < width:
        raise InputShapeError(
            f"cannot crop {height}x{width} out of an image of {image.shape[0]}x{image.shape[1]}; "
            "declare a resize that is at least as large"
        )
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _calculates(preprocess: Preprocess) -> bool:
    return bool(preprocess.zero_point or preprocess.scale != 1.0 or preprocess.mean or preprocess.std)


def _values(array: Array, preprocess: Preprocess, channel_axis: int) -> Array:
    if not _calculates(preprocess):
        return array
    values = array.astype(np.float32)
    if preprocess.zero_point:
        values -= np.float32(preprocess.zero_point)
    if preprocess.scale != 1.0:
        values *= np.float32(preprocess.scale)
    if preprocess.mean:
        values -= _per_channel("mean", preprocess.mean, values, channel_axis)
    if preprocess.std:
        values /= _per_channel("std", preprocess.std, values, channel_axis)
    return values


def _per_channel(what: str, given: tuple[float, ...], values: Array, channel_axis: int) -> Array:
    constants = np.asarray(given, np.float32)
    if constants.size == 1:
        return constants.reshape(())
    channels = values.shape[channel_axis]
    if constants.size != channels:
        raise UsageError(
            f"preprocess.{what} has {constants.size} values, the sample has {channels} channels; "
            "give one value, or one per channel (and layout=nchw if the channels come first)"
        )
    shape = [1] * values.ndim
    shape[channel_axis] = channels
    return constants.reshape(shape)


def _cast(array: Array, raw_dtype: np.dtype[Any], preprocess: Preprocess, spec: TensorSpec) -> Array:
    dtype = np.dtype(preprocess.dtype or spec.dtype)
    if preprocess.dtype is None and spec.quantization is not None:
        stored = raw_dtype == dtype and array.dtype == dtype
        dtype = dtype if stored else np.dtype(np.float32)
    if array.dtype == dtype:
        return array
    if dtype.kind in "iu" and array.dtype.kind == "f":
        info = np.iinfo(dtype)
        return np.clip(np.rint(array), info.min, info.max).astype(dtype)
    return array.astype(dtype)


def _output_name(outputs: Mapping[str, Array], postprocess: Postprocess) -> str:
    if postprocess.output is None:
        return next(iter(outputs))
    if postprocess.output not in outputs:
        raise UsageError(f"no output {postprocess.output!r}; outputs are: {', '.join(outputs)}")
    return postprocess.output


def _best_classes(scores: Array, postprocess: Postprocess, labels: Sequence[str]) -> tuple[ClassScore, ...]:
    order = np.argsort(-scores.astype(np.float64), kind="stable")[: max(1, postprocess.top)]
    classes = []
    for place in order.tolist():
        index = place - postprocess.label_offset
        label = labels[index] if 0 <= index < len(labels) else None
        classes.append(ClassScore(index, label, float(scores[place])))
    return tuple(classes)


def import_pillow(why: str) -> Any:
    """Import ``PIL.Image``; ``why`` begins the message of the EngineMissingError."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise EngineMissingError(f"{why} {IMAGES_HINT}") from error
    return Image
