"""`edgeml convert` against one script that calls the bare stock tools, in turns, on the same model."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROUNDS = 3
ALLOWED = 1.5
STOCK = Path(__file__).with_name("stock_kws.py")


@pytest.mark.data
@pytest.mark.worker("onnx2tf")
def test_convert_costs_at_most_half_again_what_the_stock_tools_cost(data_dir, tmp_path, capsys):
    """The same work on both sides: float32 and int8 for three runtimes, each evaluated on 500 samples.

    edgeml also compares each step with its source, lints the data, and writes bundle, record and report.
    Latency is left out on both sides; the cache is off.
    """
    from edgeml_converters.workers.catalogue import interpreter

    kws = data_dir / "kws"
    ours, theirs = [], []
    for round_ in range(ROUNDS):
        scratch = tmp_path / f"stock-{round_}"
        scratch.mkdir()
        seconds, output = _timed([str(STOCK), str(kws), str(scratch), str(interpreter("onnx2tf"))])
        stock = json.loads(output)
        theirs.append(seconds)
        arguments = ["-m", "edgeml", "convert", str(kws / "kws_float.onnx"), "--json", "--no-measure"]
        arguments += ["--no-cache", "--calibration", f"{kws / 'data.npz'}:calib_q", "-o", str(tmp_path)]
        arguments += ["--evaluate", f"{kws / 'data.npz'}:test_q,test_y"]
        arguments += ["--preprocess", "zero_point=83 scale=0.5847029"]
        seconds, output = _timed(arguments)
        made = json.loads(output)
        ours.append(seconds)
    with capsys.disabled():
        ratio = statistics.median(ours) / statistics.median(theirs)
        sys.stdout.write(
            f"\nconvert {statistics.median(ours):.2f} s, stock tools {statistics.median(theirs):.2f} s: "
            f"×{ratio:.2f}\n"
        )
    assert [row["status"] for row in made["variants"]] == ["ok"] * 6
    assert len(stock) == 6
    assert ratio <= ALLOWED


def _timed(arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr[-2000:]
    return seconds, done.stdout[done.stdout.index("{") :]
