"""`make demo`: one model, several targets, three runtimes; everything shown is measured here and now.

Needs the development environment (`make dev`). TFLite out of ONNX is the business of the onnx2tf worker,
which the demo installs.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "demo"
BUNDLE = OUT / "digits-1.edgeml"
REPORT = OUT / "report.html"
EDGEML = Path(sys.executable).parent / "edgeml"
TARGETS = ("raspberry-pi-4", "raspberry-pi-5", "x86-64-v3", "host")
SCHEMES = ("float32", "float16", "int8_static", "int8_weights")
RUNTIMES = ("litert", "onnxruntime", "openvino")


def near(path: object) -> str:
    """Spell a path from the root of the clone."""
    return str(path).replace(f"{ROOT}/", "")


def edgeml(*arguments: object) -> None:
    """Show a command and run it."""
    shown = [near(argument) for argument in arguments]
    print(f"\n$ edgeml {' '.join(shown)}", flush=True)
    # a log or a pipe has no width of its own, and 80 columns cut the table
    environment = os.environ if sys.stdout.isatty() else os.environ | {"COLUMNS": "120"}
    if subprocess.run([EDGEML, *map(str, arguments)], check=False, env=environment).returncode != 0:
        sys.exit(f"demo: edgeml {shown[0]} failed")


def several(option: str, values: tuple[str, ...]) -> list[str]:
    """Spell an option that is given several times."""
    return [word for value in values for word in (option, value)]


def three_lines() -> None:
    """Run the bundle as an application on a device would."""
    from digits import test

    import edgeml

    model = edgeml.load(BUNDLE)
    picture, label = next(iter(test()))
    prediction = model.predict(picture)
    print(f"\n>>> model = edgeml.load('{near(BUNDLE)}')")
    print(">>> model.predict(picture).best")
    print(f"{prediction.best.label!r} with {prediction.best.score:.1%}, truly {label}, by {model.variant}")


def main() -> None:
    started = time.monotonic()
    OUT.mkdir(parents=True, exist_ok=True)
    edgeml("workers", "install", "onnx2tf")
    edgeml(
        "convert", HERE / "digits.onnx", "--config", HERE / "digits.toml",
        *several("--target", TARGETS), *several("--scheme", SCHEMES),
        "--output", OUT,
    )  # fmt: skip
    edgeml("bundle", "verify", BUNDLE)
    edgeml("bench", BUNDLE)
    for runtime in RUNTIMES:
        variant = f"{runtime}-int8_static"
        edgeml("run", BUNDLE, f"{HERE}/digits.py:test", "--variant", variant, "--limit", 3)
    three_lines()
    print(
        f"""
Done in {time.monotonic() - started:.0f} s. Written:
  {near(BUNDLE)}
  {near(REPORT)}, for a browser

Try next:
  source .venv/bin/activate
  edgeml bundle inspect {near(BUNDLE)}
  edgeml inspect examples/digits/digits.onnx
  edgeml plan examples/digits/digits.onnx --to litert:int8_static
  edgeml convert your-model.onnx --target raspberry-pi-5 --calibration your-images/ --evaluate test.npz
and read docs/tutorial.md"""
    )


if __name__ == "__main__":
    main()
