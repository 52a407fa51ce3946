"""What `import edgeml` and `edgeml --help` may load; how long they take is in tests/benchmarks."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENGINES = (
    "ai_edge_litert onnxruntime openvino onnx nncf ai_edge_quantizer tensorflow torch keras sklearn PIL "
    "matplotlib jinja2"
).split()


def _loaded_after(program: str) -> set[str]:
    code = f"import sys\n{program}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()} | set(done.stdout.split())


def test_import_edgeml_loads_no_engine_and_no_numpy() -> None:
    loaded = _loaded_after("import edgeml")
    assert not loaded & {*ENGINES, "numpy", "click", "rich", "importlib.metadata"}


def test_the_public_names_load_numpy_and_no_engine() -> None:
    loaded = _loaded_after("import edgeml\nfor name in edgeml.__all__: getattr(edgeml, name)")
    assert "numpy" in loaded
    assert not loaded & {*ENGINES, "click", "rich"}


def test_help_loads_every_command_and_neither_numpy_nor_an_engine() -> None:
    program = "from click.testing import CliRunner\nimport edgeml.cli\n"
    program += "result = CliRunner().invoke(edgeml.cli.main, ['--help'])\nassert result.exit_code == 0\n"
    program += "assert 'convert' in result.output, result.output"
    loaded = _loaded_after(program)
    assert not loaded & {*ENGINES, "numpy", "rich"}


def test_help_lists_each_command_with_a_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeml", "--help"], capture_output=True, text=True, check=True
    )
    listed = done.stdout.partition("Commands:")[2].splitlines()
    assert [line for line in listed if line.strip() and len(line.split()) < 2] == []


@pytest.mark.parametrize("room", ["edgeml_runtimes", "edgeml_converters", "edgeml_devices"])
def test_a_room_can_be_imported_without_loading_an_engine(room: str) -> None:
    assert not _loaded_after(f"import {room}") & set(ENGINES)
