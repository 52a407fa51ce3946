"""How a window lies in one column: MessagePack without names, counts as narrow as they allow.

Counts, sums, least and greatest values are kept exactly. Rounded are the mean of random features (to half
precision, 0.05 %: their sampling error is far above) and what machines and samples show (to single).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from edgeml.telemetry.exponential import ExponentialHistogram
from edgeml.telemetry.packed import iterable_counts, pack_counts, pack_means, unpack_counts, unpack_means
from edgeml.telemetry.report import ModelWindow, Report, Sample, Summary

TOTAL: Final = "total"
"""The stage that has a column of its own, as most questions are about it."""
_LONG: Final = 2000
"""Bytes from which compression is tried; below, it costs 30 µs and gains little."""
_ZLIB: Final = 0x78
_64_BITS: Final = 1 << 64
_WHY: Final[tuple[Literal["random", "error", "unsure"], ...]] = ("random", "error", "unsure")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Codes(dict[str, Any]):
    """Numbers of texts that come again and again; a text that has none stands for itself."""

    def __missing__(self, text: str) -> int | str:
        return text


Texts = Mapping[int, str]


def pack_histogram(histogram: ExponentialHistogram) -> bytes:
    """Give a histogram as bytes."""
    return _encode(_histogram_fields(histogram))


def unpack_histogram(packed: bytes) -> ExponentialHistogram:
    """Give the histogram that :func:`pack_histogram` packed."""
    return _histogram(_decode(packed))


def packed_fields(packed: bytes) -> tuple[int, Iterable[int], int, int, float, float, int]:
    """Give the fields of a packed histogram, for sums that need no histogram of it."""
    offset, counts, zero, total, least, most, scale = _decode(packed)
    sum_nano = int.from_bytes(total, "little") if isinstance(total, bytes) else total
    return offset, iterable_counts(counts), zero, sum_nano, least, most, scale


def _histogram_fields(one: ExponentialHistogram) -> tuple[Any, ...]:
    wide: int | bytes = one.sum_nano
    if one.sum_nano >= _64_BITS:
        # all time of a large fleet
        wide = one.sum_nano.to_bytes((one.sum_nano.bit_length() + 7) // 8, "little")
    return (one.offset, _counts(one.counts), one.zero, wide, one.min, one.max, one.scale)


def _counts(counts: Sequence[int]) -> bytes:
    # MessagePack brings them as they are kept, see wire_types
    return counts if isinstance(counts, bytes) else pack_counts(counts)


def _means(window: ModelWindow) -> bytes:
    sums: object = window.rff_sum
    return sums if isinstance(sums, bytes) else pack_means(window.rff_sum, window.rff_count)


def _histogram(fields: Sequence[Any]) -> ExponentialHistogram:
    offset, counts, zero, total, *rest = fields
    sum_nano = int.from_bytes(total, "little") if isinstance(total, bytes) else total
    return ExponentialHistogram(offset, unpack_counts(counts), zero, sum_nano, *rest)


# --- a model in a window


def texts_of(report: Report) -> set[str]:
    """Give the texts of a report that are worth a number."""
    found: set[str] = set(report.system)
    for window in report.models:
        found.update(window.errors, window.latency, window.classes, window.features)
    # some databases have no NUL in texts
    return {text for text in found if "\0" not in text} if "\0" in "".join(found) else found


def pack_window(window: ModelWindow, codes: Codes) -> bytes:
    """Give what has no column of its own: all but name, calls, latency of ``total``, and samples."""
    packed = _encode(
        (
            {codes[name]: count for name, count in window.errors.items()},
            {codes[stage]: _histogram_fields(one) for stage, one in window.latency.items() if stage != TOTAL},
            {codes[name]: count for name, count in window.classes.items()},
            None if window.confidence is None else _histogram_fields(window.confidence),
            {codes[name]: _counts(counts) for name, counts in window.features.items()},
            _means(window),
            window.rff_count,
            window.processes,
            window.killed,
        )
    )
    return _shortened(packed)


def unpack_window(
    name: tuple[str, int, str, str, str],
    calls: int,
    total: bytes | None,
    body: bytes,
    samples: bytes | None,
    texts: Texts,
    at: float,
) -> ModelWindow:
    """Give a window from its columns; ``name`` is model, release, variant, runtime, reference."""
    errors, latency, classes, confidence, features, means, rff_count, processes, killed = _long(body)
    stages = {_text(stage, texts): _histogram(fields) for stage, fields in latency.items()}
    if total is not None:
        stages[TOTAL] = unpack_histogram(total)
    model, release, variant, runtime, reference = name
    return ModelWindow(
        model,
        release,
        variant,
        runtime,
        calls,
        {_text(key, texts): count for key, count in errors.items()},
        stages,
        {_text(key, texts): count for key, count in classes.items()},
        None if confidence is None else _histogram(confidence),
        {_text(key, texts): unpack_counts(counts) for key, counts in features.items()},
        unpack_means(means, rff_count),
        rff_count,
        reference,
        () if samples is None else unpack_samples(samples, texts, at),
        processes,
        killed,
    )


def _text(code: int | str, texts: Texts) -> str:
    return texts[code] if isinstance(code, int) else code


def _shortened(packed: bytes) -> bytes:
    if len(packed) > _LONG:
        shorter = zlib.compress(packed, 1)
        if len(shorter) < len(packed):
            return shorter
    return packed


def _long(packed: bytes) -> Any:
    return _decode(zlib.decompress(packed) if packed[0] == _ZLIB else packed)


# --- samples, the machine


def pack_samples(samples: Sequence[Sample], codes: Codes, ended_at: float) -> bytes | None:
    """Give samples as bytes, their times as seconds before the window's end by the same clock."""
    if not samples:
        return None
    numbers: list[float] = []
    rest = []
    for one in samples:
        numbers += (ended_at - one.at, _or_nan(one.latency_s), _or_nan(one.confidence))
        label = None if one.label is None else codes[one.label]
        features = None if one.features is None else struct.pack(f"<{len(one.features)}d", *one.features)
        told = (_WHY.index(one.why), label, one.error, features, one.raw)
        rest.append(told if any(part is not None for part in told[2:]) else told[:2])
    return _shortened(_encode((_singles(numbers), rest)))


def unpack_samples(packed: bytes, texts: Texts, at: float) -> tuple[Sample, ...]:
    """Give samples; ``at`` is the end of their window."""
    singles, rest = _long(packed)
    numbers = _unpack_singles(singles)
    found = []
    for place, told in enumerate(rest):
        before_s, latency_s, confidence = numbers[3 * place : 3 * place + 3]
        why, label, error, features, raw = told if len(told) > 2 else (*told, None, None, None)  # noqa: PLR2004
        found.append(
            Sample(
                at - before_s,
                _WHY[why],
                _or_none(latency_s),
                None if label is None else _text(label, texts),
                _or_none(confidence),
                error,
                None if features is None else struct.unpack(f"<{len(features) // 8}d", features),
                raw,
            )
        )
    return tuple(found)


def pack_system(report: Report, codes: Codes) -> bytes | None:
    """Give what a report says of the machine, if it says something."""
    if not report.system and report.energy_joules is None:
        return None
    numbers = [_or_nan(report.energy_joules)]
    counts = {}
    for name, one in report.system.items():
        numbers += (one.min, one.mean, one.max)
        counts[codes[name]] = one.count
    return _encode((_singles(numbers), counts))


def unpack_system(packed: bytes | None, texts: Texts) -> tuple[dict[str, Summary], float | None]:
    """Give quantities by name, and joules."""
    if packed is None:
        return {}, None
    singles, counts = _decode(packed)
    energy, *numbers = _unpack_singles(singles)
    system = {
        _text(code, texts): Summary(numbers[place], numbers[place + 1], numbers[place + 2], count)
        for place, (code, count) in zip(range(0, len(numbers), 3), counts.items(), strict=True)
    }
    return system, _or_none(energy)


_SINGLE: Final = 3.4028234e38


def _singles(numbers: Sequence[float]) -> bytes:
    try:
        return struct.pack(f"<{len(numbers)}f", *numbers)
    except OverflowError:
        kept = [max(-_SINGLE, min(_SINGLE, one)) for one in numbers]
        return struct.pack(f"<{len(kept)}f", *kept)


def _unpack_singles(packed: bytes) -> list[float]:
    """Give numbers with the seven digits that single precision has: 61.3, not 61.29999923706055."""
    return [float(f"{one:.7g}") for one in struct.unpack(f"<{len(packed) // 4}f", packed)]


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else number


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number
