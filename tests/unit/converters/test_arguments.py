"""What may be passed to ``convert`` from Python."""

from dataclasses import fields
from inspect import signature

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.arguments import (
    read_data,
    read_names,
    read_postprocess,
    read_preprocess,
    read_targets,
)
from edgeml_converters.convert import convert
from edgeml_converters.recorded import RecordedOptions
from edgeml_converters.variants.request import Request

from edgeml.cli import main
from edgeml.data import DataDeclaration, open_declared
from edgeml.errors import UsageError
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.targets import target
from edgeml.tensors import TensorSpec

X = TensorSpec("x", (1, 4), "float32")


def test_what_python_may_ask_for_the_command_may_too(tmp_path, monkeypatch):
    asked = {}

    def noted(_, **options):
        asked.update(options)
        raise UsageError("enough is known")

    monkeypatch.setattr("edgeml_converters.convert.convert", noted)
    (tmp_path / "m.onnx").touch()
    CliRunner().invoke(main, ["convert", str(tmp_path / "m.onnx")])
    wanted = signature(convert).parameters
    assert wanted.keys() - asked.keys() == {"source", "example_inputs"}  # a file needs no examples
    said = {name for name, value in asked.items() if value != wanted[name].default}
    in_another_form = {"preprocess", "postprocess", "health", "threads"}
    assert said == {"output", "progress", *in_another_form}


def test_a_record_holds_all_that_decides_what_is_made():
    """A field of the request that is new belongs into what is read of a record, or among these."""
    asked, again = ({one.name for one in fields(kind)} for kind in (Request, RecordedOptions))
    assert asked - again == {
        *("source", "measure", "measure_on", "threads", "resumes", "jobs"),  # decide nothing, or stand beside
        *("trust_code", "compiler_via"),  # are the caller's to say, not a stranger's record's
    }
    assert again <= asked


def test_one_target_is_taken_for_a_list_of_one():
    assert [one.name for one in read_targets("raspberry-pi-5")] == ["raspberry-pi-5"]
    assert read_targets(target("raspberry-pi-5")) == read_targets(["raspberry-pi-5", "raspberry-pi-5"])
    with pytest.raises(UsageError, match="no target was given"):
        read_targets([])


def test_one_scheme_is_taken_for_a_list_of_one():
    assert read_names("scheme", "float32", ("float32", "float16")) == ("float32",)
    with pytest.raises(UsageError, match=r"no runtime 'tflite'; runtimes are: litert, all"):
        read_names("runtime", ["tflite"], ("litert",))


@pytest.mark.parametrize(
    "given",
    [
        Preprocess(resize=(8, 8), scale=0.5),
        "resize=8 scale=1/2",
        ["resize=8", "scale=0.5"],
        {"resize": (8, 8), "scale": 0.5},
    ],
)
def test_preprocessing_is_taken_in_any_of_its_forms(given):
    assert read_preprocess(given) == Preprocess(resize=(8, 8), scale=0.5)


def test_postprocessing_is_taken_in_any_of_its_forms_and_foreign_things_are_refused():
    assert read_postprocess("argmax=true top=5") == Postprocess(argmax=True, top=5)
    assert read_postprocess({"argmax": True, "top": 5}) == Postprocess(argmax=True, top=5)
    with pytest.raises(UsageError, match="unknown key 'softmix'"):
        read_postprocess({"softmix": True})
    with pytest.raises(UsageError, match="postprocess: cannot be read from a int"):
        read_postprocess(5)
    with pytest.raises(UsageError, match="give Preprocess"):
        read_preprocess([1, 2])


def test_arrays_are_data(tmp_path):
    samples, labels = np.eye(4), np.arange(4)
    data = open_declared(read_data("evaluation", (samples, labels), tmp_path), inputs=(X,))
    np.testing.assert_array_equal(data.labels, labels)
    np.testing.assert_array_equal(np.concatenate([one["x"] for one in data]), samples.astype(np.float32))
    alone = open_declared(read_data("calibration", samples, tmp_path), inputs=(X,))
    assert (len(alone), alone.labels) == (4, None)


def test_declarations_and_paths_stay_what_they_are(tmp_path):
    declared = DataDeclaration("a.npz")
    assert read_data("evaluation", declared, tmp_path) is declared
    assert read_data("evaluation", tmp_path / "a.npz", tmp_path).source == str(tmp_path / "a.npz")
    assert read_data("evaluation", None, tmp_path) is None


@pytest.mark.parametrize("given", [[1, 2], {"x": 1}, (1, 2), np.array([None, "a"]), np.float32(1)])
def test_what_holds_no_samples_is_refused_and_open_data_is_named(given, tmp_path):
    with pytest.raises(UsageError, match=r"evaluation: .*edgeml\.data\.open_data"):
        read_data("evaluation", given, tmp_path)
