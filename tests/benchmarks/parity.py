"""The table of docs/reference/parity.md: the published models' variants here and on emulated boards.

``python -m tests.benchmarks.parity FOLDER [BOARD…]`` converts what is not in FOLDER yet, compares each bundle
with each board in user mode, keeps the answers in FOLDER, and prints the table. Needs the data folder of the
tests, the workers, and an image with every engine (``edgeml emulate build``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).parents[2]
DATA: Final = Path(os.environ.get("EDGEML_DATA", REPOSITORY / "../shared/data")).resolve()
BOARDS: Final = ("raspberry-pi-4", "raspberry-pi-5")
RUNTIMES: Final = ("litert", "onnxruntime", "openvino")
IMAGES: Final = DATA / "mobilenet/images"
MODELS: Final = {
    "kws": (
        "kws/kws_float.onnx",
        *(
            "--calibration",
            f"{DATA}/kws/data.npz:calib_q",
            "--evaluate",
            f"{DATA}/kws/data.npz:test_q,test_y",
        ),
        *("--preprocess", "zero_point=83 scale=0.5847029"),
    ),
    "ic": (
        "ic/pretrainedResnet.tflite",
        *("--calibration", f"{DATA}/ic/data.npz:calib"),
    ),
    "vww": (
        "vww/vww_96_float.tflite",
        *("--calibration", f"{DATA}/vww/data.npz:calib", "--preprocess", "std=255"),
    ),
    "mobilenet-v1": (
        "mobilenet/mobilenet_v1_0.25_128_float.onnx",
        *("--calibration", f"{IMAGES}", "--limit", "50"),
        *("--preprocess", "resize=128 mean=127.5 std=127.5 layout=nchw"),
    ),
    "mobilenet-v2": (
        "mobilenet/mobilenet_v2_1.0_224_float.onnx",
        *("--calibration", f"{IMAGES}", "--limit", "50"),
        *("--preprocess", "mean=127.5 std=127.5 layout=nchw"),
    ),
    "face": (
        "face/version-RFB-320.onnx",
        *("--calibration", f"{DATA}/face/images", "--golden", "6"),
        *("--preprocess", "resize=240x320 mean=127 std=128 layout=nchw"),
    ),
}
"""Name to the model's file in the data folder and what ``edgeml convert`` is told."""


def edgeml(*words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "edgeml", *map(str, words)]
    return subprocess.run(argv, check=False, stdout=subprocess.PIPE, text=True)


def bundle(name: str, folder: Path) -> Path:
    """Give a model's bundle, made if it is not there."""
    path = folder / f"{name}-1.edgeml"
    if not path.exists():
        source, *options = MODELS[name]
        runtimes = [word for runtime in RUNTIMES for word in ("--runtime", runtime)]
        made = ("--name", name, "--output", folder, "--no-measure")
        edgeml("convert", DATA / source, *runtimes, *options, *made)
    return path


def compared(name: str, board: str, folder: Path) -> dict[str, Any]:
    """Give each variant's row of what ``edgeml compare --on`` says."""
    kept = folder / f"{name}.{board}.json"
    if not kept.exists():
        done = edgeml(
            "compare", bundle(name, folder), "--on", f"emulator:{board}", "--mode", "user", "--json"
        )
        if "variants" not in done.stdout:
            sys.exit(f"{name} on {board}: {done.stdout}")
        kept.write_text(done.stdout)
    return {row["variant"]: row for row in json.loads(kept.read_text())["variants"]}


def cell(row: dict[str, Any] | None) -> str:
    """Say what came out: equal, or how far off; bold if that is beyond what is allowed."""
    if row is None or row["verdict"] == "not_compared":
        return "–" if row is None else f"– ({row['reason']})"
    if row["verdict"] == "equal":
        return "equal"
    text = f"{max(output['max_abs'] for output in row['outputs']):.1e}"
    return text if row["verdict"] == "within" else f"**{text}**"


def main() -> None:
    """Make the table."""
    folder, boards = Path(sys.argv[1]), sys.argv[2:] or BOARDS
    folder.mkdir(parents=True, exist_ok=True)
    print("| model | variant | allowed |", " | ".join(boards), "|")
    print("| --- | --- | --- |", " | ".join("---" for _ in boards), "|")
    for name in MODELS:
        rows = {board: compared(name, board, folder) for board in boards}
        for variant in sorted(rows[boards[0]]):
            cells = " | ".join(cell(rows[board].get(variant)) for board in boards)
            allowed = rows[boards[0]][variant]["max_abs_allowed"] or 0
            print(f"| {name} | `{variant}` | {allowed:.1e} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
