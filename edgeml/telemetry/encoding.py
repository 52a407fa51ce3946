"""Reports as bytes: JSON with defaults left out, and batches as they go over the wire, compressed.

MessagePack is used where ``msgspec`` is installed; it is a fifth smaller. The server reads both into the
dataclasses of :mod:`edgeml.telemetry.report`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

from edgeml.errors import MessageError
from edgeml.telemetry.exponential import ExponentialHistogram
from edgeml.telemetry.packed import pack_counts, pack_means
from edgeml.telemetry.report import (
    CONTENT_JSON,
    CONTENT_MSGPACK,
    Acknowledged,
    Batch,
    Lost,
    ModelWindow,
    Report,
    Sample,
    Summary,
)

T = TypeVar("T")
_LEVEL: Final = 6
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch as it is posted."""

    body: bytes
    content_type: str
    content_encoding: str = "deflate"
    """zlib's format (RFC 9110, 8.4.1.2)."""


def report_to_json(report: Report) -> bytes:
    """Give a report as JSON on one line, fields that hold their default left out.

    A number that JSON has no word for is left out, with the list that it stands in.
    """
    return _dumps(_plain(report))


def report_from_json(text: bytes) -> Report:
    """Read what :func:`report_to_json` gave; fields that are not known are left aside.

    Raises:
        MessageError: it is no report.
    """
    try:
        found = json.loads(text)
        models = tuple(_model(one) for one in found.get("models", ()))
        return _make(
            Report,
            found,
            models=models,
            system={name: _make(Summary, one) for name, one in found.get("system", {}).items()},
            lost=_make(Lost, found.get("lost", {})),
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise MessageError(f"not a telemetry report: {error}") from error


def batch_to_bytes(batch: Batch, reports: Sequence[bytes]) -> Encoded:
    """Give a batch as it is posted: as MessagePack where that can be had.

    Args:
        batch: all but the reports.
        reports: what :func:`report_to_json` gave, which need not be read again for that.
    """
    head = _dumps({name: inner for name, inner in _plain(batch).items() if name != "reports"})
    text = head[:-1] + b',"reports":[' + b",".join(reports) + b"]}"
    packed = _msgpack(text)
    if packed is not None:
        return Encoded(zlib.compress(packed, _LEVEL), CONTENT_MSGPACK)
    return Encoded(zlib.compress(text, _LEVEL), CONTENT_JSON)


def acknowledged_from_json(text: bytes) -> Acknowledged:
    """Read the server's answer.

    Raises:
        MessageError: it is none.
    """
    try:
        found = json.loads(text)
        through = found["acked_through"]
        if isinstance(through, bool) or not isinstance(through, int):
            raise TypeError(f"acked_through: {through!r:.40}")  # noqa: TRY301
        gaps = tuple((int(first), int(last)) for first, last in found.get("gaps", ()))
        return _make(Acknowledged, found, gaps=gaps)
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise MessageError(f"not an edgeml server's answer: {error}") from error


# --- writing


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


@lru_cache
def _defaults(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    def default(field: Any) -> Any:
        if field.default is not MISSING:
            return field.default
        return field.default_factory() if field.default_factory is not MISSING else MISSING

    return tuple((field.name, default(field)) for field in fields(kind))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else _ABSENT
    if value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return _without_absent((str(name), _plain(inner)) for name, inner in value.items())
    if is_dataclass(value):
        return _without_absent(
            (name, _plain(inner))
            for name, default in _defaults(value.__class__)
            if (inner := getattr(value, name)) != default
        )
    several = [_plain(inner) for inner in value]
    return _ABSENT if _ABSENT in several else several


def _without_absent(pairs: Any) -> dict[str, Any]:
    return {name: inner for name, inner in pairs if inner is not _ABSENT}


def _msgpack(text: bytes) -> bytes | None:
    try:
        import msgspec
    except ModuleNotFoundError:
        return None
    found = msgspec.json.decode(text)
    for report in found["reports"]:
        for model in report.get("models", ()):
            _pack_model(model)
    packed: bytes = msgspec.msgpack.encode(found)
    return packed


def _pack_model(model: dict[str, Any]) -> None:
    """Put bytes where they are shorter, and quicker to read, see :mod:`edgeml.telemetry.packed`."""
    for histogram in (*model.get("latency", {}).values(), model.get("confidence")):
        if histogram and "counts" in histogram:
            histogram["counts"] = pack_counts(histogram["counts"])
    features = model.get("features", {})
    for name, counts in features.items():
        features[name] = pack_counts(counts)
    if "rff_sum" in model:
        model["rff_sum"] = pack_means(model["rff_sum"], model.get("rff_count", 0))
    for sample in model.get("samples", ()):
        if "raw" in sample:
            sample["raw"] = base64.b64decode(sample["raw"])


# --- reading


def _make(kind: type[T], found: Mapping[str, Any], **made: Any) -> T:
    """Make a dataclass of what is known of an object, with the values that were made of its inner ones."""
    known = {
        name: found[name] for name, _ in _defaults(cast("Any", kind)) if name in found and name not in made
    }
    return kind(**known, **made)


def _model(found: Mapping[str, Any]) -> ModelWindow:
    confidence = found.get("confidence")
    return _make(
        ModelWindow,
        found,
        latency={stage: _histogram(one) for stage, one in found.get("latency", {}).items()},
        confidence=None if confidence is None else _histogram(confidence),
        features={name: tuple(counts) for name, counts in found.get("features", {}).items()},
        rff_sum=tuple(found.get("rff_sum", ())),
        samples=tuple(_sample(one) for one in found.get("samples", ())),
    )


def _histogram(found: Mapping[str, Any]) -> ExponentialHistogram:
    return _make(ExponentialHistogram, found, counts=tuple(found.get("counts", ())))


def _sample(found: Mapping[str, Any]) -> Sample:
    features, raw = found.get("features"), found.get("raw")
    try:
        content = None if raw is None else base64.b64decode(raw, validate=True)
    except binascii.Error as error:
        raise MessageError(f"a sample's raw input is no base64: {error}") from error
    return _make(Sample, found, features=None if features is None else tuple(features), raw=content)
