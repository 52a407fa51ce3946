"""Nothing here talks to anybody: no usage statistics, on import or on conversion."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.data

WATCHED = """
import os, sys
from pathlib import Path
seen = []
def watch(event, arguments):
    if event.startswith("socket.") or event in {"os.fork", "os.posix_spawn", "subprocess.Popen"}:
        seen.append(f"{event} {arguments}"[:200])
kws = Path(sys.argv[1])
sys.addaudithook(watch)
"""
ENDED = "\nprint(*seen, sep='\\n')"
CONVERTED = """
from edgeml_converters.steps.onnx import STEPS
from edgeml.converter import StepRequest
made = Path(sys.argv[2])
STEPS[0].run(StepRequest(source=kws / "kws_float.onnx", output_dir=made))
"""
TASKS = {
    "driver": "from edgeml import plugins\nplugins.runtime('openvino')\nimport openvino\n"
    "openvino.convert_model(kws / 'kws_float.onnx')",
    "step": CONVERTED,
    "inspect after the driver": "from edgeml import plugins\nplugins.runtime('openvino')\n" + CONVERTED +
    "from edgeml_converters.formats.inspection import inspect_model\ninspect_model(made / 'model.xml')",
    "quantizer": CONVERTED + "from edgeml import plugins\nfrom edgeml.converter import State\n"
    "(step,) = [one for one in plugins.conversion_steps()\n"
    "    if one.source == State('openvino', 'float32') and one.target == State('openvino', 'int8_weights')]\n"
    "(made / 'q').mkdir()\n"
    "step.run(StepRequest(source=made / 'model.xml', output_dir=made / 'q'))",
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_openvino_opens_no_socket_and_starts_no_process(data_dir, tmp_path, task):
    program = WATCHED + TASKS[task] + ENDED
    done = subprocess.run(
        [sys.executable, "-c", program, data_dir / "kws", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


SESSION_FILE = """
from edgeml import plugins
with plugins.runtime("onnxruntime").load(kws / "kws_float.onnx"):
    pass
"""


def test_onnxruntime_starts_no_telemetry(data_dir, tmp_path):
    """Where its telemetry runs, the engine leaves a session file among the temporary files."""
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED + SESSION_FILE + ENDED, data_dir / "kws", tmp_path],
        env={**environment, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.worker("keras")
def test_a_worker_cannot_send_statistics_either(tmp_path):
    import edgeml_converters.workers.run as runner
    from edgeml_converters.workers.catalogue import interpreter

    script = tmp_path / "worker.py"
    script.write_text(
        "def convert(request):\n"
        "    import importlib.util, sys\n"
        "    try:\n"
        "        import openvino_telemetry\n"
        "    except ModuleNotFoundError:\n"
        "        return {'silent': True}\n"
        "    return {'silent': False}\n"
    )
    request, result = tmp_path / "request.json", tmp_path / "result.json"
    request.write_text("{}")
    subprocess.run(
        [interpreter("keras"), "-P", runner.RUNNER, script, request, result], check=True, timeout=180
    )
    assert '"silent": true' in result.read_text()
