"""What the search for MobileNetV2's best variants takes: seconds, and memory of all its processes."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.integration.quantize_models import mobilenet_rows

LOOK_S: Final = 0.2
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cost:
    """What one search took."""

    seconds: float
    cpu_seconds: float
    """Of all its processes, which a busy machine does not make more."""
    peak_bytes: int
    """The most that was resident in the process and its descendants at once; shared pages count in each."""


def search_cost(data: Path, folder: Path) -> Cost:
    """Search with an empty cache; a cost that the folder holds already is read."""
    kept = folder / "search.json"
    if kept.exists():
        return Cost(**json.loads(kept.read_text()))
    for name in ("calibration", "evaluation"):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("file", "label"))
            for path, index in mobilenet_rows(data):
                if (index % 20 == 0) == (name == "calibration"):
                    rows.writerow((path.name, index))
    (folder / "search.toml").write_text(CONFIG.format(images=data / "mobilenet" / "images", folder=folder))
    words = (
        "convert",
        data / "mobilenet/mobilenet_v2_1.0_224_float.onnx",
        "--config",
        folder / "search.toml",
    )
    gate = ("--scheme", "auto", "--max-drop", "0.5", "--output", folder / "search", "--json")
    argv = [sys.executable, "-m", "edgeml", *map(str, (*words, *gate))]
    with tempfile.TemporaryDirectory() as cache, (folder / "search.log").open("w") as log:
        environment = {**os.environ, "EDGEML_CACHE_DIR": cache}
        started, before, peak = time.monotonic(), _cpu_seconds(), 0
        with subprocess.Popen(argv, env=environment, stdout=log, stderr=log) as process:
            while process.poll() is None:
                peak = max(peak, sum(map(_resident_bytes, _tree(process.pid))))
                time.sleep(LOOK_S)
        cost = Cost(time.monotonic() - started, _cpu_seconds() - before, peak)
    assert process.returncode == 0, (folder / "search.log").read_text()[-2000:]
    kept.write_text(json.dumps(asdict(cost)))
    return cost


CONFIG: Final = """\
[preprocess]
mean = 127.5
std = 127.5
layout = "nchw"

[postprocess]
label_offset = 1

[calibration]
source = "{images}"
labels = "{folder}/calibration.csv"

[evaluation]
source = "{images}"
labels = "{folder}/evaluation.csv"
metric = "top1"
"""


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree(process: int) -> Iterator[int]:
    yield process
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def _resident_bytes(process: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES
    return 0
