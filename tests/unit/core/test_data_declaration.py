"""The declaration of data and processing, in a file and by options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeml.data import (
    DataConfig,
    DataDeclaration,
    open_declared,
    parse_postprocess,
    parse_preprocess,
    read_data_config,
    read_label_names,
)
from edgeml.errors import DataError, UsageError
from edgeml.health import HealthPolicy
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.tensors import TensorSpec

WHOLE = """
labels = "labels.txt"

[preprocess]
color = "rgb"
resize = 256
crop = [224, 200]
scale = "1/255"
mean = [0.485, 0.456, 0.406]
std = 0.5
layout = "nchw"
dtype = "float32"

[postprocess]
softmax = true
argmax = true
top = 5
label_offset = 1

[calibration]
source = "calibration"
limit = 100

[evaluation]
source = "test.npz:x,y"
metric = "top1"
inputs = { image = "x" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("cat\nbig dog\n\n")
    (tmp_path / "calibration").mkdir()
    np.savez(tmp_path / "test.npz", x=np.zeros((3, 4)), y=np.arange(3))
    return tmp_path


def written(folder: Path, text: str) -> Path:
    (folder / "data.toml").write_text(text)
    return folder / "data.toml"


class TestFile:
    def test_a_whole_file_is_read(self, folder: Path) -> None:
        assert read_data_config(written(folder, WHOLE)) == DataConfig(
            preprocess=Preprocess(
                color="rgb",
                resize=(256, 256),
                crop=(224, 200),
                scale=1 / 255,
                mean=(0.485, 0.456, 0.406),
                std=(0.5,),
                layout="nchw",
                dtype="float32",
            ),
            postprocess=Postprocess(softmax=True, argmax=True, top=5, label_offset=1),
            calibration=DataDeclaration(source=f"{folder}/calibration", limit=100),
            evaluation=DataDeclaration(source=f"{folder}/test.npz:x,y", metric="top1", inputs={"image": "x"}),
            label_names=("cat", "big dog"),
        )

    def test_everything_is_optional(self, folder: Path) -> None:
        assert read_data_config(written(folder, "")) == DataConfig()

    def test_what_was_declared_can_be_opened(self, folder: Path) -> None:
        config = read_data_config(written(folder, '[evaluation]\nsource = "test.npz"\nlimit = 2'))
        assert config.evaluation is not None

        data = open_declared(config.evaluation, inputs=(TensorSpec("in", (1, 4), "float32"),))

        assert len(data) == 2
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1]

    def test_functions_patterns_and_columns_are_no_paths(self, folder: Path) -> None:
        config = read_data_config(
            written(folder, '[calibration]\nsource = "mine:samples"\nlabels = "pattern:^(x)"')
        )

        assert config.calibration == DataDeclaration(source="mine:samples", labels="pattern:^(x)")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("[preproces]", "unknown key 'preproces'; known: labels, preprocess, postprocess, calibration"),
            ("[preprocess]\nresise = 3", "[preprocess]: unknown key 'resise'; known: color, resize, crop"),
            ("[evaluation]\nsource = 'x'\nmetrics = 'y'", "known: source, inputs, labels, metric, slices"),
            ("[calibration]\nlimit = 3", "[calibration]: needs a source"),
            ("[calibration]\nsource = 3", "[calibration]: needs a text"),
            ("[calibration]\nsource = 'x'\nlimit = 1.5", "needs a whole number"),
            ("[calibration]\nsource = 'x'\ninputs = 'x'", "inputs must map input names to keys"),
            ("[preprocess]\nlayout = 'chw'", "layout = 'chw': known: nhwc, nchw"),
            ("[preprocess]\nresize = 0", "needs one size, or height and width"),
            ("[preprocess]\nresize = [1, 2, 3]", "needs one size, or height and width"),
            ("[preprocess]\nstd = [1, 0, 1]", "must not be 0"),
            ("[preprocess]\nscale = true", "needs a number"),
            ("[preprocess]\nscale = '1/0'", "division by zero"),
            ("[preprocess]\ndtype = 'float33'", "dtype = 'float33'"),
            ("[preprocess]\ndtype = 'str'", "needs a numeric dtype"),
            ("[postprocess]\nargmax = 'yes'", "needs true or false"),
            ("[postprocess]\ntop = 1.5", "needs a whole number"),
            ("preprocess = 3", "preprocess must be a table, [preprocess]"),
            ("[preprocess", "not TOML"),
        ],
    )
    def test_what_is_wrong_is_told_with_the_file(self, folder: Path, text: str, says: str) -> None:
        path = written(folder, text)

        with pytest.raises(UsageError) as caught:
            read_data_config(path)

        assert says in str(caught.value)
        assert str(path) in str(caught.value)

    def test_a_missing_file_is_wrong_usage(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"data\.toml: cannot be read: No such file"):
            read_data_config(tmp_path / "data.toml")

    def test_missing_labels_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"labels\.txt: cannot read labels"):
            read_label_names(tmp_path / "labels.txt")


class TestOptions:
    def test_options_may_stand_in_one_text_or_in_several(self) -> None:
        expected = Preprocess(
            resize=(256, 256), crop=(224, 224), mean=(127.5,), std=(127.5,), layout="nchw", color="bgr"
        )

        assert (
            parse_preprocess(["resize=256 crop=224 mean=127.5 std=127.5 layout=nchw color=bgr"]) == expected
        )
        assert (
            parse_preprocess(["resize=256", "crop=224", "mean=127.5 std=127.5", "layout=nchw", "color=bgr"])
            == expected
        )

    def test_sizes_are_height_by_width_and_values_are_one_or_one_a_channel(self) -> None:
        made = parse_preprocess(["resize=240x320 mean=0.485,0.456,0.406 scale=1/255 zero_point=-3"])

        assert made.resize == (240, 320)
        assert made.mean == (0.485, 0.456, 0.406)
        assert (made.scale, made.zero_point) == (1 / 255, -3.0)

    def test_options_change_what_a_file_declared(self) -> None:
        made = parse_preprocess(["std=2"], base=Preprocess(mean=(1.0,), std=(1.0,)))

        assert (made.mean, made.std) == ((1.0,), (2.0,))

    def test_postprocessing_too(self) -> None:
        made = parse_postprocess(["softmax=true argmax=True top=3 output=scores label_offset=1"])

        assert made == Postprocess(softmax=True, argmax=True, top=3, output="scores", label_offset=1)

    @pytest.mark.parametrize(
        ("option", "says"),
        [
            ("resise=3", "unknown key 'resise'; known: color, resize"),
            ("resize", "'resize' is not key=value"),
            ("resize=", "resize = ''"),
            ("mean=a,b", "mean = 'a,b'"),
            ("color=cmyk", "known: rgb, bgr, gray"),
        ],
    )
    def test_a_wrong_option_says_what_is_known(self, option: str, says: str) -> None:
        with pytest.raises(UsageError) as caught:
            parse_preprocess([option])

        assert says in str(caught.value)


class TestHealth:
    def test_the_table_is_a_health_policy(self, folder: Path) -> None:
        made = read_data_config(written(folder, '[health]\nprobation_s = 300\nheartbeat = "required"\n'))

        assert made.health == HealthPolicy(probation_s=300.0, heartbeat="required")

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("probation = 5", "unknown key 'probation'; known: probation_s"),
            ('probation_s = "5"', "probation_s: must be a number"),
            ("probation_s = -1", "probation_s: must be 0 or more"),
            ('heartbeat = "maybe"', "heartbeat: must be one of required, if-seen, none"),
        ],
    )
    def test_what_cannot_be_is_refused_by_name(self, folder: Path, line: str, says: str) -> None:
        with pytest.raises(UsageError, match=r"\[health\]") as caught:
            read_data_config(written(folder, f"[health]\n{line}\n"))

        assert says in str(caught.value)


def test_the_file_in_the_guide_is_a_declaration(repository: Path, folder: Path) -> None:
    text = (repository / "docs" / "how-to" / "prepare-data.md").read_text()

    made = read_data_config(written(folder, text.split("```toml\n")[1].split("```")[0]))

    assert made.preprocess.crop == (224, 224)
    assert made.evaluation is not None
    assert made.evaluation.metric == "top1"
