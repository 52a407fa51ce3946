"""The declaration of data and processing: a TOML file, or ``key=value`` options of the command line.

    labels = "labels.txt"                 # class names by index, one a line

    [preprocess]
    resize = 256
    crop = 224
    scale = "1/255"
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]

    [postprocess]
    argmax = true

    [calibration]
    source = "calibration"

    [evaluation]
    source = "test.npz:x,y"
    metric = "top1"

    [health]                              # of a release on a device (docs/reference/bundle.md)
    probation_s = 300

Paths are relative to the TOML file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_type_hints

import numpy as np

from edgeml.data.dataset import Dataset, open_data
from edgeml.data.labels import PATTERN
from edgeml.errors import DataError, UsageError
from edgeml.health import HealthPolicy, declared_health
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.tensors import TensorSpec
from edgeml.toml_file import read_toml, reject_unknown
from edgeml.words import SampleDtype

TABLES: Final = ("preprocess", "postprocess", "calibration", "evaluation", "health")
SIZE_PARTS: Final = 2
Declared = TypeVar("Declared", Preprocess, Postprocess)


@dataclass(frozen=True, slots=True)
class DataDeclaration:
    """Where samples come from, as a person declared it; ``open_declared`` opens it."""

    source: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Input name to npz key, CSV columns or key of a function's dict, where they differ."""
    labels: str | None = None
    """As for ``open_data``."""
    metric: str | None = None
    """For evaluation: ``top1``, ``top5``, ``auc``, ``mse``, ``mae`` or ``module:function``."""
    slices: str | None = None
    """For evaluation: what parts the samples, given as labels are; accuracy is told for each part."""
    limit: int | None = None
    header: bool | None = None
    """Of a CSV: whether its first row names the columns; ``None``: if it holds names only."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What a data file declares; everything is optional."""

    preprocess: Preprocess = Preprocess()
    postprocess: Postprocess = Postprocess()
    calibration: DataDeclaration | None = None
    evaluation: DataDeclaration | None = None
    label_names: tuple[str, ...] = ()
    health: HealthPolicy = HealthPolicy()


def read_data_config(path: Path) -> DataConfig:
    """Read a declaration file.

    Raises:
        UsageError: missing, not TOML, an unknown table or key (names the known ones), a wrong value.
    """
    read = read_toml(path, ("labels", *TABLES))
    where = str(path)
    tables: dict[str, Mapping[str, Any]] = {}
    for name in TABLES:
        table = read.get(name, {})
        if not isinstance(table, dict):
            raise UsageError(f"{where}: {name} must be a table, [{name}]")
        tables[name] = table
    folder = path.parent
    return DataConfig(
        preprocess=_declared(Preprocess(), tables["preprocess"], f"{where} [preprocess]"),
        postprocess=_declared(Postprocess(), tables["postprocess"], f"{where} [postprocess]"),
        calibration=_data(tables["calibration"], f"{where} [calibration]", folder),
        evaluation=_data(tables["evaluation"], f"{where} [evaluation]", folder),
        label_names=read_label_names(folder / _text(read["labels"])) if "labels" in read else (),
        health=declared_health(tables["health"], f"{where} [health]"),
    )


def parse_preprocess(
    options: Iterable[str] | Mapping[str, Any], base: Preprocess = Preprocess()
) -> Preprocess:
    """Read pre-processing from texts such as ``resize=256 crop=224 mean=127.5 std=127.5 layout=nchw``.

    Each text may hold several options, and one text or a mapping does as well; ``base`` is what a file
    declared before.

    Raises:
        UsageError: an unknown key (names the known ones) or a value that does not parse.
    """
    return _declared(base, _pairs(options, "--preprocess"), "--preprocess")


def parse_postprocess(
    options: Iterable[str] | Mapping[str, Any], base: Postprocess = Postprocess()
) -> Postprocess:
    """Read post-processing from texts such as ``softmax=true argmax=true top=5``.

    Raises:
        UsageError: as for ``parse_preprocess``.
    """
    return _declared(base, _pairs(options, "--postprocess"), "--postprocess")


def read_label_names(path: Path) -> tuple[str, ...]:
    """Read class names, one a line, blank lines at the end left out.

    Raises:
        DataError: missing or not text.
    """
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read labels: {error}") from error


def open_declared(
    declaration: DataDeclaration,
    *,
    inputs: tuple[TensorSpec, ...],
    preprocess: Preprocess = Preprocess(),
    label_names: Sequence[str] = (),
) -> Dataset:
    """Open declared data for a model; raises as ``open_data`` does."""
    return open_data(
        declaration.source,
        inputs=inputs,
        preprocess=preprocess,
        keys=declaration.inputs,
        labels=declaration.labels,
        label_names=label_names,
        limit=declaration.limit,
        header=declaration.header,
    )


def _pairs(options: Iterable[str] | Mapping[str, Any], where: str) -> dict[str, Any]:
    if isinstance(options, Mapping):
        return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    found: dict[str, Any] = {}
    for word in (options if isinstance(options, str) else " ".join(options)).split():
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{where}: {word!r} is not key=value")
        found[key] = value
    return found


def _declared(base: Declared, table: Mapping[str, Any], where: str) -> Declared:
    reject_unknown(table, tuple(f.name for f in fields(base)), where)
    hints = get_type_hints(type(base))
    changes: dict[str, Any] = {}
    for key, value in table.items():
        try:
            changes[key] = _parser(key, hints[key])(value)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise UsageError(f"{where}: {key} = {value!r}: {error}") from error
    return replace(base, **changes)


def _parser(key: str, hint: Any) -> Callable[[Any], Any]:
    by_key: dict[str, Callable[[Any], Any]] = {
        "resize": _size,
        "crop": _size,
        "mean": _numbers,
        "std": _divisors,
        "dtype": _dtype,
    }
    if key in by_key:
        return by_key[key]
    words = [word for part in (hint, *get_args(hint)) for word in get_args(part) if isinstance(word, str)]
    if words:
        return lambda value: _word(value, words)
    plain: dict[Any, Callable[[Any], Any]] = {bool: _flag, int: _integer, float: _number}
    return plain.get(hint, _text)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("needs a number")
    if isinstance(value, str):
        above, slash, below = value.partition("/")
        return float(above) / float(below) if slash else float(above)
    return float(value)


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        value = value.split(",")
    return tuple(_number(item) for item in value) if isinstance(value, list) else (_number(value),)


def _divisors(value: Any) -> tuple[float, ...]:
    numbers = _numbers(value)
    if 0.0 in numbers:
        raise ValueError("must not be 0, samples are divided by it")
    return numbers


def _integer(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise TypeError("needs a whole number")
    return int(value)


def _size(value: Any) -> tuple[int, int]:
    parts = value.lower().split("x") if isinstance(value, str) else value
    parts = parts if isinstance(parts, list) else [parts]
    numbers = [_integer(part) for part in parts]
    if len(numbers) not in {1, SIZE_PARTS} or min(numbers) < 1:
        raise ValueError("needs one size, or height and width as 240x320")
    return numbers[0], numbers[-1]


def _dtype(value: Any) -> str:
    name = str(np.dtype(_text(value)).name)
    if name not in get_args(SampleDtype):
        raise ValueError("needs a numeric dtype such as float32, uint8 or int8")
    return name


def _word(value: Any, words: Sequence[str]) -> str:
    if value not in words:
        raise ValueError(f"known: {', '.join(words)}")
    return str(value)


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in {"true", "false"}:
        raise ValueError("needs true or false")
    return str(value).lower() == "true"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("needs a text")
    return value


def _data(table: Mapping[str, Any], where: str, folder: Path) -> DataDeclaration | None:
    if not table:
        return None
    reject_unknown(table, tuple(f.name for f in fields(DataDeclaration)), where)
    if "source" not in table:
        raise UsageError(f"{where}: needs a source")
    inputs = table.get("inputs", {})
    if not isinstance(inputs, dict) or not all(isinstance(value, str) for value in inputs.values()):
        raise UsageError(f'{where}: inputs must map input names to keys, as inputs = {{image = "x"}}')
    try:
        labels = _text(table["labels"]) if "labels" in table else None
        slices = _text(table["slices"]) if "slices" in table else None
        return DataDeclaration(
            source=_located(_text(table["source"]), folder),
            inputs=inputs,
            labels=None if labels is None else _located(labels, folder),
            metric=_text(table["metric"]) if "metric" in table else None,
            slices=None if slices is None else _located(slices, folder),
            limit=_integer(table["limit"]) if "limit" in table else None,
            header=_flag(table["header"]) if "header" in table else None,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error


def _located(text: str, folder: Path) -> str:
    """Put ``folder`` before a path that stands in it; keys, patterns and modules stay as they are."""
    head = text.rpartition(":")[0]
    if text.startswith(PATTERN):
        return text
    return str(folder / text) if any((folder / part).exists() for part in (text, head) if part) else text
