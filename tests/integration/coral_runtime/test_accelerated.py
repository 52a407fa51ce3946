"""Models compiled for the Edge TPU, on a library that stands in for Coral's."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from edgeml import edgetpu, plugins
from edgeml.arrays import Array
from edgeml.errors import AcceleratorError, InferenceError, UsageError
from edgeml.runtime import Profiler, Session, TensorTap
from edgeml.testing.coral import VARIABLE, standin_options

pytestmark = pytest.mark.data


def load(model: Path, **options: str) -> Session:
    driver = plugins.runtime("litert")
    return driver.load(model, driver.options(options))


def answer(session: Session, x: Array) -> Array:
    (result,) = session.run({session.inputs[0].name: x}).values()
    return result


def processes() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_compiled_model_answers_as_its_source(
    coral: object, source: Path, compiled: Path, cat: Array
) -> None:
    with load(source) as ours, load(compiled) as theirs:
        assert [spec.shape for spec in ours.inputs] == [spec.shape for spec in theirs.inputs]
        assert ours.outputs[0].quantization == theirs.outputs[0].quantization
        assert (answer(ours, cat) == answer(theirs, cat)).all()
        real = cat.astype(np.float32) / 128 - 1
        assert (answer(ours, real) == answer(theirs, real)).all()


def test_the_library_may_be_named_by_an_option(
    coral_standin: Path, compiled: Path, source: Path, cat: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, standin_options(source))
    with load(compiled, delegate=str(coral_standin), device="usb:0", performance="max") as session:
        assert answer(session, cat).max() > 0


def test_a_delegate_leaves_other_models_alone(
    coral: object, coral_standin: Path, source: Path, cat: Array
) -> None:
    with load(source) as plain, load(source, delegate=str(coral_standin)) as session:
        assert (answer(session, cat) == answer(plain, cat)).all()


def test_closing_frees_the_device(coral: object, compiled: Path, cat: Array) -> None:
    before = processes()
    session = load(compiled)
    run = session.run
    assert processes() != before
    session.close()
    session.close()
    assert processes() == before
    with pytest.raises(InferenceError, match="closed"):
        run({session.inputs[0].name: cat})


def test_a_session_that_is_forgotten_frees_the_device(coral: object, compiled: Path, cat: Array) -> None:
    before = processes()
    session = load(compiled)
    answer(session, cat)
    del session
    gc.collect()
    assert processes() == before


def test_threads_may_share_a_session(coral: object, source: Path, compiled: Path, cat: Array) -> None:
    with load(source) as plain, load(compiled) as session:
        expected = {seed: answer(plain, np.roll(cat, seed, 1)) for seed in range(4)}
        wrong: list[int] = []

        def work(seed: int) -> None:
            given = np.roll(cat, seed, 1)
            wrong.extend(seed for _ in range(20) if (answer(session, given) != expected[seed]).any())

        threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_intermediate_tensors_are_those_outside_the_edge_tpu(
    coral: object, compiled: Path, cat: Array
) -> None:
    driver = plugins.runtime("litert")
    assert isinstance(driver, TensorTap)
    with driver.load_tapped(compiled) as session:
        found = session.run({session.inputs[0].name: cat})
    assert list(found) == [spec.name for spec in session.outputs]


def test_its_operators_are_not_timed(coral: object, compiled: Path, cat: Array) -> None:
    driver = plugins.runtime("litert")
    assert isinstance(driver, Profiler)
    with pytest.raises(InferenceError, match="cannot be timed one by one"):
        driver.profile(compiled, {"input": cat})


# --- what can be missing


def test_a_missing_library_is_to_be_installed(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(edgetpu.VARIABLE, str(tmp_path / "libedgetpu.so.1"))
    with pytest.raises(
        AcceleratorError,
        match=r"_edgetpu\.tflite: compiled for the Edge TPU, and .*libedgetpu\.so\.1 is not on this machine: "
        r"install .*libedgetpu1-std",
    ):
        load(compiled)


def test_a_library_that_cannot_be_loaded_says_why(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libedgetpu.so.1"
    library.write_bytes(b"\x7fELF of another machine")
    monkeypatch.setenv(edgetpu.VARIABLE, str(library))
    with pytest.raises(AcceleratorError, match=r"library cannot be loaded: .*for this machine"):
        load(compiled)


def test_a_missing_device_is_to_be_plugged_in(
    coral: pytest.MonkeyPatch, source: Path, compiled: Path
) -> None:
    coral.setenv(VARIABLE, standin_options(source, attached="none"))
    coral.setattr("edgeml_runtimes.litert_delegate.edge_tpus", lambda: ())
    with pytest.raises(AcceleratorError, match="no Edge TPU is attached: plug it in"):
        load(compiled)


def test_a_device_that_may_not_be_used_is_a_matter_of_udev(
    coral: pytest.MonkeyPatch, source: Path, compiled: Path
) -> None:
    denied = edgetpu.EdgeTpu("usb", Path("/dev/bus/usb/001/004"), is_writable=False)
    coral.setenv(VARIABLE, standin_options(source, attached="none"))
    coral.setattr("edgeml_runtimes.litert_delegate.edge_tpus", lambda: (denied,))
    with pytest.raises(AcceleratorError, match=r"may not write to .*/dev/bus/usb/001/004: .*udev"):
        load(compiled)


def test_what_the_library_says_is_passed_on(coral: pytest.MonkeyPatch, compiled: Path) -> None:
    coral.setenv(VARIABLE, "colour=blue")
    with pytest.raises(AcceleratorError, match="refuses: EDGEML_CORAL_STANDIN: cannot take colour"):
        load(compiled)


def test_a_model_that_the_device_refuses_says_why(
    coral: pytest.MonkeyPatch, data_dir: Path, compiled: Path
) -> None:
    other = data_dir / "edgetpu_pairs" / "google-coral__split_concat__cdc17e7.tflite"
    coral.setenv(VARIABLE, standin_options(other))
    with pytest.raises(AcceleratorError, match=r"the Edge TPU refuses it: .*was made of another"):
        load(compiled)


def test_a_device_that_is_unplugged_fails_the_call_and_says_so(
    coral: pytest.MonkeyPatch, source: Path, compiled: Path, cat: Array
) -> None:
    coral.setenv(VARIABLE, standin_options(source, fail_after=1))
    with load(compiled) as session:
        answer(session, cat)
        for _ in range(2):
            with pytest.raises(AcceleratorError, match=r"failed while it ran.*device is gone.*plug it in"):
                answer(session, cat)


@pytest.mark.parametrize("device", ["gpu", "usb:", "usb1", "0"])
def test_a_device_of_another_form_is_a_wrong_call(device: str, coral: object, compiled: Path) -> None:
    with pytest.raises(UsageError, match="none of usb, pci"):
        load(compiled, device=device)
