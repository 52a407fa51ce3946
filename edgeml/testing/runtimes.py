"""The contract of a runtime as tests: subclass, give the fixture ``runtime_name``, and run pytest.

```python
from edgeml.testing.runtimes import RuntimeContract

class TestMine(RuntimeContract):
    @pytest.fixture
    def runtime_name(self) -> str:
        return "mine"
```

A runtime whose format is not one of edgeml's also gives the models: override the fixtures ``double``,
``double_free``, ``crossed`` and ``quantized``. What they calculate stands in ``edgeml.testing.models``.
"""

from __future__ import annotations

import gc
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from edgeml import plugins
from edgeml.errors import (
    EngineMissingError,
    InferenceError,
    InputDtypeError,
    InputNameError,
    InputShapeError,
    ModelFileError,
    UsageError,
)
from edgeml.runtime import Profiler, RuntimeOptions, TensorTap
from edgeml.testing import missing
from edgeml.testing.models import SCALE, WIDTH, ZERO_POINT, make_crossed, make_double, make_quantized

if TYPE_CHECKING:
    from pathlib import Path

    from edgeml.arrays import Array
    from edgeml.runtime import Runtime, Session
    from edgeml.words import RuntimeName

VALUES = np.arange(WIDTH, dtype=np.float32)[None] - WIDTH / 2
"""Float samples [1, 16] that scale 0.5 holds exactly."""
STORED = (VALUES / SCALE + ZERO_POINT).astype(np.int8)
THREADS, CALLS = 4, 200


class RuntimeContract:
    """What every runtime keeps."""

    @pytest.fixture
    def runtime_name(self) -> str:
        raise NotImplementedError("give the runtime's entry point name in a fixture runtime_name")

    @pytest.fixture
    def runtime(self, runtime_name: str) -> Runtime:
        try:
            return plugins.runtime(runtime_name)
        except EngineMissingError as error:
            missing(str(error))

    @pytest.fixture
    def double(self, runtime: Runtime, tmp_path: Path) -> Path:
        """``y = 2 · x``, float32 [1, 16]."""
        return make_double(_folder(tmp_path, "double"), cast("RuntimeName", runtime.name))

    @pytest.fixture
    def double_free(self, runtime: Runtime, tmp_path: Path) -> Path:
        """``y = 2 · x``, float32 [?, 16]."""
        return make_double(_folder(tmp_path, "free"), cast("RuntimeName", runtime.name), batch=None)

    @pytest.fixture
    def crossed(self, runtime: Runtime, tmp_path: Path) -> Path:
        """``total = left + right``, ``product = left · right``, float32 [1, 16]."""
        return make_crossed(_folder(tmp_path, "crossed"), cast("RuntimeName", runtime.name))

    @pytest.fixture
    def quantized(self, runtime: Runtime, tmp_path: Path) -> Path:
        """``y = max(x, 0)``, int8 [1, 16], scale 0.5, zero point 10."""
        return make_quantized(_folder(tmp_path, "quantized"), cast("RuntimeName", runtime.name))

    # --- what a runtime says of itself

    def test_it_is_called_what_its_entry_point_is_called(self, runtime: Runtime, runtime_name: str) -> None:
        assert runtime.name == runtime_name

    def test_it_tells_the_version_of_its_engine(self, runtime: Runtime) -> None:
        assert runtime.version[:1].isdigit()

    def test_options_are_read_from_texts(self, runtime: Runtime) -> None:
        assert runtime.options({"threads": "2"}).threads == 2

    def test_an_unknown_option_names_the_known_ones(self, runtime: Runtime) -> None:
        with pytest.raises(UsageError, match=r"no option 'speed'.*threads"):
            runtime.options({"speed": "high"})

    @pytest.mark.parametrize("text", ["many", "0", "-1", ""])
    def test_an_option_that_does_not_parse_is_a_usage_error(self, runtime: Runtime, text: str) -> None:
        with pytest.raises(UsageError, match="threads"):
            runtime.options({"threads": text})

    def test_plain_options_are_taken(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double, RuntimeOptions(threads=2)) as session:
            assert (session.run({"x": VALUES})["y"] == 2 * VALUES).all()

    # --- running

    def test_it_describes_inputs_and_outputs(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session:
            assert [str(spec) for spec in session.inputs] == [f"x float32[1,{WIDTH}]"]
            assert [str(spec) for spec in session.outputs] == [f"y float32[1,{WIDTH}]"]

    def test_it_calculates(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session:
            result = session.run({"x": VALUES})
        assert list(result) == ["y"]
        assert result["y"].dtype == np.float32
        assert (result["y"] == 2 * VALUES).all()

    def test_two_inputs_and_two_outputs_go_by_name(self, runtime: Runtime, crossed: Path) -> None:
        left, right = VALUES, VALUES[:, ::-1].copy()
        with runtime.load(crossed) as session:
            assert {spec.name for spec in session.inputs} == {"left", "right"}
            result = session.run({"right": right, "left": left})
        assert (result["total"] == left + right).all()
        assert (result["product"] == left * right).all()

    def test_a_free_batch_takes_any_size_and_any_order_of_sizes(
        self, runtime: Runtime, double_free: Path
    ) -> None:
        with runtime.load(double_free) as session:
            assert session.inputs[0].shape == (None, WIDTH)
            for size in (1, 3, 3, 1, 5, 2, 1):
                samples = np.random.default_rng(size).random((size, WIDTH), np.float32)
                assert (session.run({"x": samples})["y"] == 2 * samples).all()

    def test_an_array_with_gaps_between_its_values_is_read_right(
        self, runtime: Runtime, double: Path
    ) -> None:
        spread = np.repeat(VALUES, 2, axis=1)[:, ::2]
        turned = np.asfortranarray(VALUES)
        with runtime.load(double) as session:
            assert (session.run({"x": spread})["y"] == 2 * VALUES).all()
            assert (session.run({"x": VALUES[:, ::-1]})["y"] == 2 * VALUES[:, ::-1]).all()
            assert (session.run({"x": turned})["y"] == 2 * VALUES).all()

    def test_a_read_only_array_is_taken(self, runtime: Runtime, double: Path) -> None:
        frozen = VALUES.copy()
        frozen.flags.writeable = False
        with runtime.load(double) as session:
            assert (session.run({"x": frozen})["y"] == 2 * VALUES).all()

    def test_a_mapped_file_is_read_right(self, runtime: Runtime, double: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", VALUES)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        with runtime.load(double) as session:
            assert (session.run({"x": mapped})["y"] == 2 * VALUES).all()

    def test_any_mapping_will_do(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session:
            assert (session.run(MappingProxyType({"x": VALUES}))["y"] == 2 * VALUES).all()

    def test_swapped_bytes_are_read_right(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session:
            assert (session.run({"x": VALUES.astype(">f4")})["y"] == 2 * VALUES).all()

    # --- arrays belong to the caller

    def test_a_result_does_not_change_when_the_model_runs_again(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session:
            first = session.run({"x": VALUES})["y"]
            session.run({"x": VALUES + 1})
            assert (first == 2 * VALUES).all()

    def test_a_result_can_be_written_to(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session:
            session.run({"x": VALUES})["y"][:] = 7
            assert (session.run({"x": VALUES})["y"] == 2 * VALUES).all()

    def test_the_input_is_not_changed(self, runtime: Runtime, double: Path) -> None:
        given = VALUES.copy()
        with runtime.load(double) as session:
            session.run({"x": given})["y"][:] = 7
        assert (given == VALUES).all()

    def test_results_outlive_the_session(self, runtime: Runtime, double: Path) -> None:
        session = runtime.load(double)
        result = session.run({"x": VALUES})["y"]
        session.close()
        del session
        gc.collect()
        assert (result == 2 * VALUES).all()

    # --- wrong inputs

    @pytest.mark.parametrize("given", [{"z": VALUES}, {}, {"x": VALUES, "z": VALUES}])
    def test_wrong_names_are_refused(self, runtime: Runtime, double: Path, given: dict[str, Any]) -> None:
        with runtime.load(double) as session, pytest.raises(InputNameError, match="inputs are: x"):
            session.run(given)

    @pytest.mark.parametrize("given", [[VALUES], None, VALUES, "x"])
    def test_what_is_no_mapping_is_refused(self, runtime: Runtime, double: Path, given: Any) -> None:
        with runtime.load(double) as session, pytest.raises(InputNameError, match="mapping"):
            session.run(given)

    @pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int64", "bool"])
    def test_another_dtype_is_refused(self, runtime: Runtime, double: Path, dtype: str) -> None:
        with (
            runtime.load(double) as session,
            pytest.raises(InputDtypeError, match=f"got {dtype}, needs float32"),
        ):
            session.run({"x": VALUES.astype(dtype)})

    def test_what_is_no_array_is_refused(self, runtime: Runtime, double: Path) -> None:
        with (
            runtime.load(double) as session,
            pytest.raises(InputDtypeError, match=r"got list.*numpy\.asarray"),
        ):
            session.run({"x": cast("Any", VALUES.tolist())})

    def test_a_missing_batch_dimension_is_told(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session, pytest.raises(InputShapeError, match=r"x\[None\]"):
            session.run({"x": VALUES[0]})

    @pytest.mark.parametrize("shape", [(1, WIDTH + 1), (WIDTH, 1), (2, WIDTH), (1, 1, WIDTH), (), (0, WIDTH)])
    def test_another_shape_is_refused(self, runtime: Runtime, double: Path, shape: tuple[int, ...]) -> None:
        with runtime.load(double) as session, pytest.raises(InputShapeError, match="needs"):
            session.run({"x": np.zeros(shape, np.float32)})

    def test_a_refused_input_leaves_the_session_usable(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session:
            with pytest.raises(InputShapeError):
                session.run({"x": VALUES[0]})
            assert (session.run({"x": VALUES})["y"] == 2 * VALUES).all()

    def test_a_fixed_side_of_a_model_with_a_free_one_is_checked(
        self, runtime: Runtime, double_free: Path
    ) -> None:
        with runtime.load(double_free) as session:
            session.run({"x": np.zeros((2, WIDTH), np.float32)})
            with pytest.raises(InputShapeError):
                session.run({"x": np.zeros((2, WIDTH + 1), np.float32)})

    # --- quantized artifacts

    def test_it_tells_scale_and_zero_point(self, runtime: Runtime, quantized: Path) -> None:
        with runtime.load(quantized) as session:
            for spec in (*session.inputs, *session.outputs):
                assert spec.dtype == "int8"
                assert spec.quantization is not None
                assert (spec.quantization.scale, spec.quantization.zero_point) == ((SCALE,), (ZERO_POINT,))

    def test_a_float_caller_gets_floats(self, runtime: Runtime, quantized: Path) -> None:
        with runtime.load(quantized) as session:
            result = session.run({"x": VALUES})["y"]
        assert result.dtype == np.float32
        assert (result == np.maximum(VALUES, 0)).all()

    def test_a_caller_with_stored_integers_gets_stored_integers(
        self, runtime: Runtime, quantized: Path
    ) -> None:
        with runtime.load(quantized) as session:
            result = session.run({"x": STORED})["y"]
        assert result.dtype == np.int8
        assert (result == np.maximum(STORED, ZERO_POINT)).all()

    def test_floats_out_of_range_are_clipped(self, runtime: Runtime, quantized: Path) -> None:
        with runtime.load(quantized) as session:
            result = session.run({"x": VALUES * 1000})["y"]
        highest = (127 - ZERO_POINT) * SCALE
        assert (result == np.clip(VALUES * 1000, 0, highest)).all()

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float64"])
    def test_a_quantized_input_takes_no_third_dtype(
        self, runtime: Runtime, quantized: Path, dtype: str
    ) -> None:
        with (
            runtime.load(quantized) as session,
            pytest.raises(InputDtypeError, match=f"zero point 10.*got {dtype}"),
        ):
            session.run({"x": np.zeros((1, WIDTH), dtype)})

    # --- threads

    def test_threads_may_share_a_session(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session:
            assert _wrong_results(session, [1] * THREADS) == 0

    def test_threads_may_share_a_session_of_free_batch(self, runtime: Runtime, double_free: Path) -> None:
        with runtime.load(double_free) as session:
            assert _wrong_results(session, [1, 2, 3, 2]) == 0

    def test_a_session_may_be_closed_while_others_use_it(self, runtime: Runtime, double: Path) -> None:
        session = runtime.load(double)
        begun = threading.Barrier(THREADS + 1)

        def work() -> str:
            begun.wait()
            try:
                while True:
                    assert (session.run({"x": VALUES})["y"] == 2 * VALUES).all()
            except InferenceError as error:
                return str(error)

        with ThreadPoolExecutor(THREADS) as pool:
            ended = [pool.submit(work) for _ in range(THREADS)]
            begun.wait()
            session.close()
            assert all("closed" in future.result(30) for future in ended)

    # --- closing

    def test_it_refuses_to_run_once_closed(self, runtime: Runtime, double: Path, crossed: Path) -> None:
        for artifact, given in ((double, {"x": VALUES}), (crossed, {"left": VALUES, "right": VALUES})):
            session = runtime.load(artifact)
            run = session.run
            session.close()
            for call in (session.run, run):
                with pytest.raises(InferenceError, match="closed"):
                    call(given)

    def test_it_can_be_closed_twice(self, runtime: Runtime, double: Path) -> None:
        session = runtime.load(double)
        session.close()
        session.close()

    def test_two_sessions_of_one_file_do_not_know_of_each_other(self, runtime: Runtime, double: Path) -> None:
        first, second = runtime.load(double), runtime.load(double)
        first.close()
        with second:
            assert (second.run({"x": VALUES})["y"] == 2 * VALUES).all()

    def test_the_file_may_go_once_it_is_loaded(self, runtime: Runtime, double: Path) -> None:
        with runtime.load(double) as session:
            shutil.rmtree(double.parent)
            assert (session.run({"x": VALUES})["y"] == 2 * VALUES).all()

    # --- files

    def test_a_missing_file_is_named(self, runtime: Runtime, double: Path) -> None:
        gone = double.with_name("gone" + double.suffix)
        with pytest.raises(ModelFileError, match=r"no such file.*gone"):
            runtime.load(gone)

    def test_an_empty_file_is_named(self, runtime: Runtime, double: Path) -> None:
        double.write_bytes(b"")
        with pytest.raises(ModelFileError, match="empty"):
            runtime.load(double)

    def test_a_git_lfs_pointer_is_recognised(self, runtime: Runtime, double: Path) -> None:
        double.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n")
        with pytest.raises(ModelFileError, match="Git LFS"):
            runtime.load(double)

    def test_a_folder_is_no_model(self, runtime: Runtime, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError):
            runtime.load(tmp_path)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
    def test_a_file_cut_short_never_crosses_as_an_error_of_the_engine(
        self, runtime: Runtime, double: Path, share: float
    ) -> None:
        content = double.read_bytes()
        double.write_bytes(content[: int(len(content) * share)])
        with suppress(ModelFileError, InferenceError):  # some bytes at the end of a file mean nothing
            runtime.load(double).close()

    def test_noise_is_no_model(self, runtime: Runtime, double: Path) -> None:
        double.write_bytes(np.random.default_rng(0).bytes(4096))
        with pytest.raises(ModelFileError):
            runtime.load(double)

    # --- looking inside

    def test_intermediate_tensors_include_the_outputs(self, runtime: Runtime, crossed: Path) -> None:
        if not isinstance(runtime, TensorTap):
            pytest.skip(f"{runtime.name} shows no intermediate tensors")
        with runtime.load_tapped(crossed) as session:
            result = session.run({"left": VALUES, "right": VALUES})
        assert [spec.name for spec in session.outputs] == list(result)
        assert (result["total"] == VALUES + VALUES).all()
        assert (result["product"] == VALUES * VALUES).all()

    def test_intermediate_tensors_are_dequantized(self, runtime: Runtime, quantized: Path) -> None:
        if not isinstance(runtime, TensorTap):
            pytest.skip(f"{runtime.name} shows no intermediate tensors")
        with runtime.load_tapped(quantized) as session:
            for given in (VALUES, STORED):
                result = session.run({"x": given})["y"]
                assert result.dtype == np.float32
                assert (result == np.maximum(VALUES, 0)).all()

    def test_a_profile_names_what_was_executed(self, runtime: Runtime, crossed: Path) -> None:
        if not isinstance(runtime, Profiler):
            pytest.skip(f"{runtime.name} times no operators")
        found = runtime.profile(crossed, {"left": VALUES, "right": VALUES}, runs=5)
        assert found
        assert all(operator.name and operator.kind and operator.mean_us >= 0 for operator in found)


def _wrong_results(session: Session, sizes: list[int]) -> int:
    """Run from one thread per size at the same time and count results that are not twice the input."""

    def work(size: int, seed: int) -> int:
        random = np.random.default_rng(seed)
        wrong = 0
        for _ in range(CALLS):
            samples: Array = random.random((size, WIDTH), np.float32)
            wrong += not (session.run({"x": samples})["y"] == 2 * samples).all()
        return wrong

    with ThreadPoolExecutor(len(sizes)) as pool:
        return sum(pool.map(work, sizes, range(len(sizes))))


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder
