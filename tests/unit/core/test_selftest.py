"""The self-test on real engines: what is sound passes, what is not is a result with a reason."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeml.bundle import open_bundle, write_bundle
from edgeml.health import HealthPolicy
from edgeml.manifest import Tolerance
from edgeml.selftest import SelftestResult, run_selftest
from tests.unit.core.release_folders import FILES, digits, install, times

POLICY = HealthPolicy()
NAMES = [f"{runtime}-float32" for runtime in FILES]


@pytest.fixture(name="bundle", scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits(tmp_path_factory.mktemp("digits"))


def check(path: Path, variant: str = "litert-float32", policy: HealthPolicy = POLICY) -> SelftestResult:
    return run_selftest(path, variant, policy, timeout_s=60)


def changed(
    bundle: Path, path: Path, *, outputs: dict[str, np.ndarray] | None = None, **variant: object
) -> Path:
    """Write the bundle again with other golden outputs, or other fields of its first variant."""
    opened = open_bundle(bundle)
    folder = opened.extract(path.parent / "extracted")
    manifest = opened.manifest
    first = replace(manifest.variants[0], **variant)
    if outputs is not None:
        np.savez(folder / "golden" / "litert-float32.npz", **outputs)
        first = replace(first, golden=replace(first.golden, sha256="", size_bytes=0))
    names = [entry.path for entry in first.files]
    names += [entry.path for entry in manifest.files] + ([first.golden.path] if first.golden else [])
    write_bundle(path, replace(manifest, variants=(first,)), {name: folder / name for name in names})
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_variant_passes_and_is_measured(tmp_path: Path, bundle: Path, name: str) -> None:
    folder = install(tmp_path, bundle, name).release_folder(1)
    result = check(folder, name)
    assert result.passed, result
    assert (result.variant, result.reason) == (name, None)
    assert "6 golden samples" in result.detail
    assert result.latency_ms is not None
    assert 0 < result.latency_ms.p50 <= result.latency_ms.p95 <= result.latency_ms.p99
    assert result.load_ms is not None
    assert result.load_ms > 0
    assert result.peak_memory_bytes is not None
    assert 1_000_000 < result.peak_memory_bytes < 500_000_000


def test_a_bundle_file_can_be_tested_before_it_is_installed(bundle: Path) -> None:
    assert check(bundle).passed


def test_other_outputs_than_the_golden_ones_fail(tmp_path: Path, bundle: Path) -> None:
    wrong = changed(bundle, tmp_path / "wrong.edgeml", outputs={"scores": np.ones((6, 10), np.float32)})
    result = check(wrong)
    assert (result.passed, result.reason) == (False, "parity")
    assert "output 'scores' is off by" in result.detail
    assert result.latency_ms is None


def test_the_tolerance_decides(tmp_path: Path, bundle: Path) -> None:
    loose = Tolerance(1000.0, -1.0)
    wrong = {"scores": np.full((6, 10), 0.1, np.float32)}
    assert check(changed(bundle, tmp_path / "loose.edgeml", outputs=wrong, tolerance=loose)).passed


def test_limits_of_the_policy_are_held(bundle: Path) -> None:
    slow = check(bundle, policy=HealthPolicy(selftest_max_latency_p95_ms=1e-6))
    assert (slow.passed, slow.reason) == (False, "latency")
    assert slow.latency_ms is not None
    large = check(bundle, policy=HealthPolicy(selftest_max_memory_bytes=1000))
    assert (large.passed, large.reason) == (False, "memory")
    assert check(bundle, policy=HealthPolicy(selftest_max_latency_p95_ms=1e4)).passed


def test_a_bundle_without_golden_samples_is_loaded_and_run(tmp_path: Path) -> None:
    result = check(times(tmp_path, 2.0, 1), "onnxruntime-float32")
    assert result.passed
    assert "no golden samples" in result.detail
    assert result.latency_ms is not None


@pytest.mark.parametrize(
    ("missing", "said"),
    [({"tolerance": None}, "has no tolerance"), ({"golden": None}, "has no golden outputs")],
)
def test_a_part_of_the_golden_samples_is_not_enough(
    tmp_path: Path, bundle: Path, missing: dict[str, None], said: str
) -> None:
    result = check(changed(bundle, tmp_path / "part.edgeml", **missing))
    assert (result.passed, result.reason) == (False, "manifest")
    assert said in result.detail


def test_golden_samples_of_another_model_are_refused(tmp_path: Path, bundle: Path) -> None:
    other = changed(bundle, tmp_path / "other.edgeml", outputs={"y": np.ones((6, 10), np.float32)})
    assert check(other).reason == "manifest"


def test_what_is_no_release_is_a_result(tmp_path: Path, bundle: Path) -> None:
    assert check(tmp_path / "none").reason == "manifest"
    assert check(tmp_path).reason == "manifest"
    missing = check(bundle, "tvm-float32")
    assert missing.reason == "manifest"
    assert "here are: litert-float32, onnxruntime-float32" in missing.detail


def test_a_damaged_artifact_fails(tmp_path: Path, bundle: Path) -> None:
    folder = install(tmp_path, bundle).release_folder(1)
    artifact = folder / "variants" / "litert-float32" / "digits.tflite"
    content = bytearray(artifact.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.write_bytes(content)
    assert check(folder).reason == "manifest"


def test_a_missing_engine_is_a_result_that_says_how_to_install_it(tmp_path: Path, bundle: Path) -> None:
    old = check(changed(bundle, tmp_path / "future.edgeml", runtime_version=">=99"))
    assert (old.passed, old.reason) == (False, "engine")
    assert "pip install" in old.detail


def test_an_interpreter_that_is_not_there_is_a_result(bundle: Path) -> None:
    result = run_selftest(bundle, "litert-float32", POLICY, timeout_s=10, python="/no/such/python")
    assert (result.passed, result.reason) == (False, "selftest_crash")


# --- engines that crash, hang, or take all memory: an interpreter stands in for them


def interpreter(path: Path, program: str) -> str:
    """Write an interpreter that runs ``program`` after it has said that it loads the model."""
    path.write_text(
        f"#!{sys.executable}\n"
        "import os, signal, subprocess, sys, time\n"
        'os.write(int(sys.argv[-1]), b\'{"stage": "loaded the model"}\\n\')\n'
        f"{program}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("program", "reason", "said"),
    [
        (
            "os.kill(os.getpid(), signal.SIGSEGV)",
            "selftest_crash",
            "crashed (SIGSEGV) while it loaded the model",
        ),
        (
            "print('no such kernel'); sys.exit(3)",
            "selftest_crash",
            "exit code 3 while it loaded the model: no such",
        ),
        ("os.kill(os.getpid(), signal.SIGKILL)", "memory", "most likely for lack of memory"),
        ("time.sleep(60)", "selftest_timeout", "did not end within 2 s"),
        ("os.write(int(sys.argv[-1]), b'{\"passed')", "selftest_crash", "exit code 0"),
    ],
)
def test_a_process_that_does_not_come_to_its_end_is_a_result(
    tmp_path: Path, bundle: Path, program: str, reason: str, said: str
) -> None:
    python = interpreter(tmp_path / "python", program)
    timeout_s = 2 if reason == "selftest_timeout" else 60
    result = run_selftest(bundle, "litert-float32", POLICY, timeout_s=timeout_s, python=python)
    assert (result.passed, result.reason) == (False, reason)
    assert said in result.detail


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_hang_is_killed_with_all_that_it_started(tmp_path: Path, bundle: Path) -> None:
    file, python = tmp_path / "pid", tmp_path / "python"
    python.write_text(f"#!/bin/sh\nsleep 60 & echo $! > {file}; wait\n")  # a shell starts at once
    python.chmod(0o700)
    begun = time.monotonic()
    result = run_selftest(bundle, "litert-float32", POLICY, timeout_s=2, python=str(python))
    assert result.reason == "selftest_timeout"
    assert time.monotonic() - begun < 45
    assert not is_running(int(file.read_text()))


def test_the_process_goes_first_when_memory_runs_out_and_leaves_no_core(tmp_path: Path, bundle: Path) -> None:
    code = (
        "import resource; from edgeml.selftested import _restrain; _restrain(60)\n"
        "print(open('/proc/self/oom_score_adj').read(), resource.getrlimit(resource.RLIMIT_CORE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1000", "0"]


def test_a_process_whose_parent_was_killed_ends_by_itself(bundle: Path) -> None:
    request = {"folder": str(bundle), "variant": "litert-float32", "alarm_s": 0.01}
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write):
        argv = [sys.executable, "-m", "edgeml.selftested", json.dumps(request), str(write)]
        assert subprocess.run(argv, pass_fds=(write,), check=False).returncode == -14


# --- the command


def edgeml_selftest(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "edgeml", "selftest", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_the_command_tests_an_installed_model_by_its_name(tmp_path: Path, bundle: Path) -> None:
    model = install(tmp_path, bundle, "onnxruntime-float32")
    model.current.symlink_to("releases/1")
    done = edgeml_selftest("digits", "--json", EDGEML_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["schema"], said["model"], said["release"]) == (1, "digits", 1)
    assert (said["variant"], said["passed"], said["reason"]) == ("onnxruntime-float32", True, None)
    assert said["latency_ms"].keys() == {"p50", "p95", "p99"}


def test_the_command_ends_with_3_for_a_variant_that_is_not_sound(tmp_path: Path, bundle: Path) -> None:
    wrong = changed(bundle, tmp_path / "wrong.edgeml", outputs={"scores": np.ones((6, 10), np.float32)})
    done = edgeml_selftest(str(wrong))
    assert done.returncode == 3
    assert "failed (parity)" in done.stdout
    assert edgeml_selftest(str(wrong), "--variant", "x").returncode == 2
    assert edgeml_selftest(str(tmp_path / "none")).returncode == 1


def test_what_the_bundle_allows_holds_for_the_command(tmp_path: Path) -> None:
    path = digits(tmp_path, health={"selftest_max_latency_p95_ms": 1e-6})
    assert "failed (latency)" in edgeml_selftest(str(path)).stdout
