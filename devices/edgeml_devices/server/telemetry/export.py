"""Windows as a Parquet file: a few thousand rows in memory at a time, whatever the file's size."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from edgeml.atomic import replacing_file
from edgeml.errors import UsageError
from edgeml.telemetry.exponential import ExponentialHistogram
from edgeml_devices.server.telemetry.store import Selection, TelemetryStore, WindowRow

_GROUP: Final = 10_000
"""Rows of one row group."""


async def export_parquet(store: TelemetryStore, selection: Selection, file: Path) -> int:
    """Write a row for each model in each window, in order of (at, device); give their number.

    The file appears whole or not at all. Histograms stand as OpenTelemetry's exponential histograms do.

    Raises:
        UsageError: pyarrow is missing.
    """
    pa, pq = _pyarrow()
    schema = _schema(pa)
    count = 0
    waiting: list[WindowRow] = []
    with (
        replacing_file(file) as scratch,
        pq.ParquetWriter(scratch, schema, compression="zstd") as writer,
    ):
        async for piece in store.windows(selection):
            waiting += piece
            count += len(piece)
            if len(waiting) >= _GROUP:
                await asyncio.to_thread(writer.write_table, _table(pa, schema, waiting), _GROUP)
                waiting = []
        if waiting:
            writer.write_table(_table(pa, schema, waiting), _GROUP)
    return count


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise UsageError(
            "Parquet needs 'pyarrow'. Install it: pip install 'edgeml-devices[parquet]'"
        ) from error
    return pa, pq


def _schema(pa: Any) -> Any:
    histogram = pa.struct(
        [
            ("scale", pa.int32()),
            ("offset", pa.int64()),
            ("counts", pa.list_(pa.int64())),
            ("zero", pa.int64()),
            ("sum_nano", pa.int64()),
            ("min", pa.float64()),
            ("max", pa.float64()),
        ]
    )
    text, count = pa.string(), pa.int64()
    return pa.schema(
        [
            ("at", pa.timestamp("us", tz="UTC")),
            ("seconds", pa.float64()),
            ("device_id", pa.dictionary(pa.int32(), text)),
            ("target", pa.dictionary(pa.int32(), text)),
            ("model", pa.dictionary(pa.int32(), text)),
            ("release", count),
            ("variant", pa.dictionary(pa.int32(), text)),
            ("runtime", pa.dictionary(pa.int32(), text)),
            ("calls", count),
            ("errors", pa.map_(text, count)),
            ("latency", pa.map_(text, histogram)),
            ("classes", pa.map_(text, count)),
            ("confidence", histogram),
            ("features", pa.map_(text, pa.list_(count))),
            ("rff_sum", pa.list_(pa.float64())),
            ("rff_count", count),
            ("reference", pa.dictionary(pa.int32(), text)),
            ("processes", count),
            ("killed", count),
        ]
    )


def _table(pa: Any, schema: Any, rows: list[WindowRow]) -> Any:
    return pa.Table.from_pylist([_row(row) for row in rows], schema=schema)


def _row(row: WindowRow) -> dict[str, Any]:
    window = row.window
    plain = (
        "model",
        "release",
        "variant",
        "runtime",
        "calls",
        "rff_count",
        "reference",
        "processes",
        "killed",
    )
    return {name: getattr(window, name) for name in plain} | {
        "at": round(row.at * 1e6),
        "seconds": row.seconds,
        "device_id": row.device_id,
        "target": row.target,
        "errors": list(window.errors.items()),
        "latency": [(stage, _histogram(one)) for stage, one in window.latency.items()],
        "classes": list(window.classes.items()),
        "confidence": None if window.confidence is None else _histogram(window.confidence),
        "features": [(name, list(counts)) for name, counts in window.features.items()],
        "rff_sum": list(window.rff_sum),
    }


def _histogram(one: ExponentialHistogram) -> dict[str, Any]:
    fields = {name: getattr(one, name) for name in ("scale", "offset", "zero", "sum_nano", "min", "max")}
    return fields | {"counts": list(one.counts)}
