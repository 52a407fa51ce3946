"""Parquet files hold what the store holds, and are written a piece at a time."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from edgeml_devices.server.telemetry import export
from edgeml_devices.server.telemetry.store import Incoming, Selection

from edgeml.errors import UsageError
from tests.conftest import require
from tests.integration.telemetry.windows import Telemetry

pytestmark = pytest.mark.anyio
BEGIN = 1_790_000_000.0


@pytest.fixture(autouse=True)
def pyarrow() -> None:
    try:
        import pyarrow as pa  # noqa: F401
    except ModuleNotFoundError as error:
        require(condition=False, reason=str(error))


async def test_rows_come_back_as_they_are_stored(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "_GROUP", 7)
    stream = Telemetry(random.Random(3))  # noqa: S311 - made-up data
    reports = [stream.next(BEGIN + 60 * n) for n in range(25)]
    await store.append([Incoming("d", stream.epoch, one, one.at, one.at, "pi") for one in reports])
    file = tmp_path / "windows.parquet"
    assert await export.export_parquet(store, Selection(0, BEGIN + 600), file) == 11

    import pyarrow.parquet as pq

    found = pq.ParquetFile(file)
    assert found.num_row_groups > 1
    rows = found.read().to_pylist()
    stored = [row async for piece in store.windows(Selection(0, BEGIN + 600)) for row in piece]
    assert [row["at"] for row in rows] == [datetime.fromtimestamp(row.at, UTC) for row in stored]
    assert [row["calls"] for row in rows] == [row.window.calls for row in stored]
    assert [dict(row["classes"]) for row in rows] == [row.window.classes for row in stored]
    latency, total = dict(rows[0]["latency"])["total"], stored[0].window.latency["total"]
    assert (latency["offset"], tuple(latency["counts"])) == (total.offset, total.counts)
    assert rows[0]["rff_sum"] == list(stored[0].window.rff_sum)


async def test_without_pyarrow_it_says_what_to_install(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"edgeml-devices\[parquet\]"):
        await export.export_parquet(store, Selection(0, 4e9), tmp_path / "windows.parquet")
    assert not (tmp_path / "windows.parquet").exists()


async def test_a_viewer_fetches_a_file_over_http(client, services, tmp_path) -> None:
    stream = Telemetry(random.Random(3))  # noqa: S311 - made-up data
    report = stream.next(BEGIN)
    await services.telemetry.append([Incoming("d", stream.epoch, report, BEGIN, BEGIN, "pi")])
    asked = {"since": BEGIN - 60, "until": BEGIN + 60}
    answer = await client.get("/v1/telemetry/export", params=asked)
    assert answer.status_code == 200, answer.text
    (tmp_path / "fetched").write_bytes(answer.content)

    import pyarrow.parquet as pq

    assert pq.ParquetFile(tmp_path / "fetched").metadata.num_rows == 1
    assert not list(services.settings.data.glob("export-*"))


MEMORY = """
import asyncio, random, resource, sys
from pathlib import Path
from dataclasses import replace
from edgeml_devices.server.settings import ServerSettings
from edgeml_devices.server.telemetry import export
from edgeml_devices.server.telemetry.opening import open_store
from edgeml_devices.server.telemetry.store import Incoming, Selection
from tests.integration.telemetry.windows import Telemetry, link

async def main(folder, rows):
    store = await open_store(ServerSettings(folder))
    chance = random.Random(1)
    stream = Telemetry(chance)
    template = stream.next(1.79e9)
    prev = ""
    for first in range(0, rows, 500):
        several = []
        for seq in range(first, first + 500):
            one = replace(template, seq=seq, link=link(chance), prev=prev, at=1.79e9 + seq)
            prev = one.link
            several.append(Incoming("d", stream.epoch, one, one.at, one.at, "pi"))
        await store.append(several)
    await export.export_parquet(store, Selection(0, 1.79e9), folder / "small.parquet")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await export.export_parquet(store, Selection(0, 4e9), folder / "large.parquet")
    await store.close()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

export._GROUP = 500
print(asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]))))
"""


def test_memory_does_not_grow_with_the_file(tmp_path, repository) -> None:
    grown = []
    for rows in (2_000, 12_000):
        folder = tmp_path / str(rows)
        command = [sys.executable, "-c", MEMORY, str(folder), str(rows)]
        done = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
        grown.append(int(done.stdout))
    assert grown[1] - grown[0] < 20_000, f"kB for six times the rows: {grown}"
