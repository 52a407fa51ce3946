"""How a window lies in one column: MessagePack without names, counts as narrow as they allow.

Counts, sums, least and greatest values are kept exactly. Rounded are the mean of random features (to half
precision, 0.05 %: their sampling error is far above) and what machines and samples show (to single).
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from edgeml.telemetry.exponential import ExponentialHistogram
from edgeml.telemetry.report import ModelWindow, Report, Sample, Summary

TOTAL: Final = "total"
"""The stage that has a column of its own, as most questions are about it."""
_LONG: Final = 2000
"""Bytes from which compression is tried; below, it costs 30 µs and gains little."""
_ZLIB: Final = 0x78
_NIBBLES: Final = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))
_WIDE: Final = (("H", 1 << 16), ("I", 1 << 32), ("Q", 1 << 64))
_64_BITS: Final = 1 << 64
_WHY: Final[tuple[Literal["random", "error", "unsure"], ...]] = ("random", "error", "unsure")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

Codes = Mapping[str, int]
"""Numbers of texts that come again and again; a text that has none stands for itself."""
Texts = Mapping[int, str]


def pack_counts(counts: Sequence[int]) -> bytes:
    """Give counts from 0 to 2**64 - 1 as bytes: half a byte each, one, two, four or eight."""
    try:
        narrow = bytes(counts)
    except ValueError:
        return _pack_wide(counts)
    digits = narrow.hex()
    if not digits[::2].strip("0"):
        return bytes.fromhex(f"01{digits[1::2]}0" if len(narrow) & 1 else f"00{digits[1::2]}")
    return b"\2" + narrow


def _pack_wide(counts: Sequence[int]) -> bytes:
    most = max(counts)
    for kind, (code, above) in enumerate(_WIDE, 3):
        if most < above:
            return bytes([kind]) + _little(array(code, counts)).tobytes()
    raise OverflowError(f"{most} does not fit into 64 bits")


def unpack_counts(packed: bytes) -> tuple[int, ...]:
    """Give the counts that :func:`pack_counts` packed."""
    return tuple(_iterable_counts(packed))


def _iterable_counts(packed: bytes) -> bytes | array[Any]:
    kind = packed[0]
    if kind < 2:  # noqa: PLR2004 - half bytes, an even or odd number of them
        counts = packed[1:].hex().encode().translate(_NIBBLES)
        return counts[:-1] if kind else counts
    if kind == 2:  # noqa: PLR2004 - bytes
        return packed[1:]
    wide = array(_WIDE[kind - 3][0])
    wide.frombytes(packed[1:])
    return _little(wide)


def _little(numbers: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


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
    return offset, _iterable_counts(counts), zero, sum_nano, least, most, scale


def _histogram_fields(one: ExponentialHistogram) -> tuple[Any, ...]:
    wide: int | bytes = one.sum_nano
    if one.sum_nano >= _64_BITS:
        # all time of a large fleet
        wide = one.sum_nano.to_bytes((one.sum_nano.bit_length() + 7) // 8, "little")
    return (one.offset, pack_counts(one.counts), one.zero, wide, one.min, one.max, one.scale)


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
    code = codes.get
    packed = _encode(
        (
            {code(name, name): count for name, count in window.errors.items()},
            {
                code(stage, stage): _histogram_fields(one)
                for stage, one in window.latency.items()
                if stage != TOTAL
            },
            {code(name, name): count for name, count in window.classes.items()},
            None if window.confidence is None else _histogram_fields(window.confidence),
            {code(name, name): pack_counts(counts) for name, counts in window.features.items()},
            _pack_means(window.rff_sum, window.rff_count),
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
        _unpack_means(means, rff_count),
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


def _pack_means(sums: Sequence[float], count: int) -> bytes:
    if count:
        means = [one / count for one in sums]
        try:
            return b"e" + struct.pack(f"<{len(means)}e", *means)
        except OverflowError:
            pass
    return b"d" + struct.pack(f"<{len(sums)}d", *sums) if sums else b""


def _unpack_means(packed: bytes, count: int) -> tuple[float, ...]:
    if not packed:
        return ()
    size = 2 if packed[:1] == b"e" else 8
    found = struct.unpack(f"<{(len(packed) - 1) // size}{packed[:1].decode()}", packed[1:])
    return tuple(one * count for one in found) if size == 2 else found  # noqa: PLR2004 - half precision


# --- samples, the machine


def pack_samples(samples: Sequence[Sample], codes: Codes, ended_at: float) -> bytes | None:
    """Give samples as bytes, their times as seconds before the window's end by the same clock."""
    if not samples:
        return None
    numbers: list[float] = []
    rest = []
    for one in samples:
        numbers += (ended_at - one.at, _or_nan(one.latency_s), _or_nan(one.confidence))
        label = None if one.label is None else codes.get(one.label, one.label)
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
        counts[codes.get(name, name)] = one.count
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
