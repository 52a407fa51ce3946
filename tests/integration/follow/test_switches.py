"""An installed model follows ``current`` between two calls."""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgeml
from edgeml.bundle import open_bundle
from edgeml.errors import EdgemlError, InferenceError, UsageError
from edgeml.following import load_current
from edgeml.installed import InstalledModel
from edgeml.model import Loaded
from edgeml.testing.models import make_double
from edgeml.words import RuntimeName
from tests.integration.follow.listening import Agent
from tests.unit.core.release_folders import bundled, install, switch
from tests.waiting import eventually

X = np.ones((1, 16), np.float32)


def test_a_switch_is_taken_between_two_calls(installed: InstalledModel) -> None:
    with edgeml.load("times") as model:
        assert (model.release, model(X)[0, 0]) == (1, 1)
        switch(installed, 2)
        eventually(lambda: model.release == 2)
        assert model(X)[0, 0] == 2
        assert model.variant == "onnxruntime-float32"
        assert [spec.name for spec in model.spec.inputs] == ["a"]
        assert model.run({"a": X})["b"][0, 0] == 2
        assert model(a=X)[0, 0] == 2
        assert model.predict(X[0]).outputs["b"][0, 0] == 2
        assert "times release 2" in repr(model)
        switch(installed, 1)
        eventually(lambda: model(X)[0, 0] == 1)


def test_no_call_is_dropped_or_torn_while_releases_are_switched(installed: InstalledModel) -> None:
    wrong: list[object] = []
    seen: list[set[float]] = [set() for _ in range(4)]
    done = threading.Event()

    def work(model: edgeml.Model, place: int) -> None:
        calls: list[Callable[[], np.ndarray]] = [
            lambda: model(X),
            lambda: next(iter(model.predict(X[0]).outputs.values())),
        ]
        try:
            while not done.is_set():
                values = set(calls[place % 2]().ravel().tolist())
                seen[place] |= values
                if len(values) != 1 or not values <= {1.0, 2.0}:
                    wrong.append(values)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it should not be
            wrong.append(error)

    with edgeml.load("times") as model:
        threads = [threading.Thread(target=work, args=(model, place)) for place in range(4)]
        for thread in threads:
            thread.start()
        for number in range(200):
            switch(installed, 1 + number % 2)
            time.sleep(0.015)
        for number in (1, 2):
            switch(installed, number)
            eventually(lambda wanted=number: model.release == wanted)  # type: ignore[misc] # bound now
            eventually(lambda wanted=number: wrong or all(wanted in values for values in seen))  # type: ignore[misc] # as above
        done.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert seen == [{1, 2}] * 4
        assert model(X)[0, 0] == 2


def test_without_follow_a_model_stays_what_it_is(installed: InstalledModel, agent: Agent) -> None:
    with edgeml.load("times", follow=False) as pinned, edgeml.load("times") as model:
        switch(installed, 2)
        eventually(lambda: model.release == 2)
        assert pinned(X)[0, 0] == 1
    with edgeml.load(installed.release_folder(1)) as by_path:
        assert by_path.release == 1
    assert len({beat.process for beat in agent.hear()}) == 1


def test_what_was_asked_for_holds_for_each_release(installed: InstalledModel) -> None:
    with pytest.raises(UsageError, match="no_such"):
        edgeml.load("times", options={"no_such": "1"})
    with edgeml.load("times", variant="onnxruntime-float32", threads=2) as model:
        switch(installed, 2)
        eventually(lambda: model.release == 2)


def test_a_release_that_cannot_be_loaded_leaves_the_old_one_running(
    installed: InstalledModel, agent: Agent
) -> None:
    artifact = installed.release_folder(2) / "variants" / "onnxruntime-float32" / "times-2.onnx"
    content = artifact.read_bytes()
    artifact.write_bytes(content[:-1] + b"x")
    with edgeml.load("times") as model:
        switch(installed, 2)
        beat = agent.hears(lambda beat: beat.state == "load_failed")
        assert (beat.release, beat.variant) == (2, "onnxruntime-float32")
        assert "BundleError" in beat.detail
        assert "damaged" in beat.detail
        assert model(X)[0, 0] == 1
        artifact.write_bytes(content)
        switch(installed, 1)
        switch(installed, 2)  # as a second attempt does
        eventually(lambda: model.release == 2)
        agent.hears(lambda beat: beat.state == "running" and beat.release == 2)


def test_a_failure_is_said_again_until_the_device_switches(installed: InstalledModel, agent: Agent) -> None:
    (installed.release_folder(2) / "manifest.json").unlink()
    with edgeml.load("times"):
        switch(installed, 2)
        eventually(lambda: sum(beat.state == "load_failed" for beat in agent.hear()) >= 2)
        agent.beats.clear()
        switch(installed, 1)
        # a failure is said right after each beat of what runs
        eventually(lambda: [beat.state for beat in agent.hear()][-3:] == ["running"] * 3)


def test_a_removed_model_runs_on_until_its_process_ends(installed: InstalledModel) -> None:
    with edgeml.load("times") as model:
        installed.current.unlink()
        shutil.rmtree(installed.releases)
        time.sleep(0.6)
        assert model(X)[0, 0] == 1
    with pytest.raises(UsageError, match="no installed model"):
        edgeml.load("times")


def test_the_factorys_bundle_is_followed_like_a_release(installed: InstalledModel, tmp_path: Path) -> None:
    open_bundle(tmp_path / "made" / "times-2.edgeml").extract(installed.factory)
    with edgeml.load("times") as model:
        installed.current.unlink()
        installed.current.symlink_to("factory")
        eventually(lambda: model(X)[0, 0] == 2)


def test_a_release_that_goes_away_while_it_is_loaded_is_passed_over(installed: InstalledModel) -> None:
    folders = []

    def load(folder: Path) -> Loaded:
        folders.append(folder.name)
        if len(folders) == 1:  # the device switches and clears up meanwhile
            switch(installed, 2)
            shutil.rmtree(installed.release_folder(1))
        return edgeml.load(folder)._loaded

    target, loaded = load_current(installed, load)
    assert (target, loaded.release, folders) == ("releases/2", 2, ["1", "2"])
    shutil.rmtree(installed.release_folder(2))
    with pytest.raises(EdgemlError):
        load_current(installed, load)


def test_a_closed_model_says_so_and_follows_no_more(installed: InstalledModel, agent: Agent) -> None:
    model = edgeml.load("times")
    model.close()
    model.close()
    with pytest.raises(InferenceError, match="closed"):
        model(X)
    switch(installed, 2)
    time.sleep(0.4)
    assert model.release == 1
    assert [beat.state for beat in agent.hear()][-1] == "closed"
    eventually(lambda: not any("edgeml follows" in thread.name for thread in threading.enumerate()))


# --- engines are freed


def sessions() -> int:
    return sum(type(thing).__name__ == "BoundSession" for thing in gc.get_objects())


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "openvino"])
def test_an_old_engine_is_freed_as_soon_as_no_call_uses_it(
    home: Path, tmp_path: Path, runtime: RuntimeName
) -> None:
    artifact = make_double(tmp_path, runtime)
    files = (artifact, *tmp_path.glob("*.bin"))
    for release in (1, 2):
        installed = install(home, bundled(tmp_path, "double", release, runtime, *files))
    switch(installed, 1)
    gc.collect()
    gc.disable()
    try:
        before = sessions()
        models = [edgeml.load("double")]
        under_way = [models[0].run]
        switch(installed, 2)
        eventually(lambda: models[0].release == 2)
        time.sleep(0.6)
        assert sessions() == before + 2
        (name,) = (spec.name for spec in models[0].spec.inputs)
        np.testing.assert_array_equal(next(iter(under_way[0]({name: X}).values())), 2 * X)
        under_way.clear()
        eventually(lambda: sessions() == before + 1)
        np.testing.assert_array_equal(models[0](X), 2 * X)
        models.clear()
        eventually(lambda: sessions() == before)
    finally:
        gc.enable()


def test_a_model_that_nobody_has_any_more_is_not_followed(installed: InstalledModel, agent: Agent) -> None:
    model = edgeml.load("times")
    model(X)
    del model
    assert agent.hears(lambda beat: beat.state == "closed").calls == 1
