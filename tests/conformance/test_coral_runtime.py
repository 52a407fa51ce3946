"""LiteRT keeps the contract of runtimes with every operator on the Edge TPU's stand-in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import pytest
from edgeml_runtimes.binding import BoundSession
from edgeml_runtimes.litert import LiteRT

from edgeml import edgetpu
from edgeml.arrays import Array
from edgeml.errors import InferenceError
from edgeml.runtime import Runtime, RuntimeOptions
from edgeml.testing.coral import VARIABLE, standin_options
from edgeml.testing.coral.compiled import write_compiled
from edgeml.testing.models import make_crossed, make_double, make_quantized
from edgeml.testing.runtimes import VALUES, RuntimeContract


class OnStandin(LiteRT):
    """The driver, whose stand-in is told of each model's source: ``source.tflite`` beside it."""

    def load(self, artifact: Path, options: RuntimeOptions | None = None) -> BoundSession:
        with self._told(artifact):
            return super().load(artifact, options)

    def load_tapped(self, artifact: Path, options: RuntimeOptions | None = None) -> BoundSession:
        with self._told(artifact):
            return super().load_tapped(artifact, options)

    def profile(
        self,
        artifact: Path,
        inputs: Mapping[str, Array],
        options: RuntimeOptions | None = None,
        runs: int = 50,
    ) -> tuple[object, ...]:
        with self._told(artifact):
            return super().profile(artifact, inputs, options, runs)

    def _told(self, artifact: Path) -> mock._patch_dict:
        return mock.patch.dict(os.environ, {VARIABLE: standin_options(artifact.with_name("source.tflite"))})


class TestLiteRTOnTheStandIn(RuntimeContract):
    @pytest.fixture
    def runtime_name(self) -> str:
        return "litert"

    @pytest.fixture
    def runtime(self, coral_standin: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
        monkeypatch.setenv(edgetpu.VARIABLE, str(coral_standin))
        return OnStandin()

    @pytest.fixture
    def double(self, tmp_path: Path) -> Path:
        return compiled(make_double(folder(tmp_path, "double"), "litert"))

    @pytest.fixture
    def double_free(self) -> Path:
        pytest.skip("what is compiled for an Edge TPU has no free dimensions")

    @pytest.fixture
    def crossed(self, tmp_path: Path) -> Path:
        return compiled(make_crossed(folder(tmp_path, "crossed"), "litert"))

    @pytest.fixture
    def quantized(self, tmp_path: Path) -> Path:
        return compiled(make_quantized(folder(tmp_path, "quantized"), "litert"))

    def test_a_profile_names_what_was_executed(self, runtime: Runtime, crossed: Path) -> None:
        assert isinstance(runtime, OnStandin)
        with pytest.raises(InferenceError, match="cannot be timed one by one"):
            runtime.profile(crossed, {"left": VALUES, "right": VALUES})


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    yield
    assert children.read_text() == before


def folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


def compiled(model: Path) -> Path:
    return write_compiled(model.rename(model.with_name("source.tflite")), model)
