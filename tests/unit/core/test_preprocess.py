"""Pre- and post-processing: what a raw sample becomes, and what a person is told of the outputs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeml.errors import EngineMissingError, InputShapeError, UsageError
from edgeml.pipeline import finish, prepare, softmax
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.tensors import Quantization, TensorSpec


def image_input(
    height: int | None, width: int | None, channels: int = 3, dtype: str = "float32"
) -> TensorSpec:
    return TensorSpec("image", (1, height, width, channels), dtype)


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


class TestPrepare:
    def test_by_default_only_the_batch_and_the_dtype_change(self) -> None:
        raw = picture(4, 5)

        made = prepare(raw, Preprocess(), image_input(4, 5))

        assert made.shape == (1, 4, 5, 3)
        assert made.dtype == np.float32
        assert np.array_equal(made[0], raw)

    def test_a_sample_that_has_its_batch_dimension_keeps_its_shape(self) -> None:
        raw = np.ones((1, 49, 10, 1), np.float32)

        assert prepare(raw, Preprocess(), TensorSpec("x", (None, 49, 10, 1), "float32")).shape == raw.shape

    def test_float64_becomes_the_models_float32(self) -> None:
        made = prepare(np.zeros(10), Preprocess(), TensorSpec("x", (None, 10), "float32"))

        assert made.dtype == np.float32

    @pytest.mark.parametrize(
        ("raw", "shape"),
        [
            ((28, 28), (1, 28, 28, 1)),
            ((28, 28, 1), (1, 28, 28, 1)),
            ((16000,), (16000,)),
            ((16000,), (1, 16000)),
            ((20, 7), (1, 20, 7)),
        ],
    )
    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_missing_axes_of_one_are_added(
        self, raw: tuple[int, ...], shape: tuple[int, ...], dtype: str
    ) -> None:
        made = prepare(np.ones(raw, dtype), Preprocess(), TensorSpec("x", shape, "float32"))

        assert made.shape == shape

    def test_stored_integers_become_what_they_stand_for(self) -> None:
        stored = np.array([[-128, 0, 83, 127]], np.int8)
        declared = Preprocess(zero_point=83, scale=0.5847029)

        made = prepare(stored, declared, TensorSpec("x", (1, 4), "float32"))

        expected = (stored.astype(np.float32) - 83) * np.float32(0.5847029)
        assert np.array_equal(made, expected)

    @given(
        scale=st.floats(0.001, 10),
        mean=st.floats(-200, 200),
        std=st.floats(0.01, 200),
        zero_point=st.floats(-128, 127),
    )
    def test_values_are_zero_point_then_scale_then_mean_then_std(
        self, scale: float, mean: float, std: float, zero_point: float
    ) -> None:
        raw = np.arange(-128, 128, dtype=np.int16)
        declared = Preprocess(scale=scale, mean=(mean,), std=(std,), zero_point=zero_point)

        made = prepare(raw, declared, TensorSpec("x", (1, 256), "float32"))

        expected = ((raw.astype(np.float64) - zero_point) * scale - mean) / std
        size = (256 * scale + abs(mean)) / std
        assert np.allclose(made[0], expected, rtol=1e-5, atol=1e-5 * size + 1e-6)

    @pytest.mark.parametrize("layout", ["nhwc", "nchw"])
    def test_one_mean_and_std_for_each_channel(self, layout: str) -> None:
        raw = picture(3, 2)
        means, stds = (10.0, 20.0, 30.0), (1.0, 2.0, 4.0)
        shape = (1, 3, 2, 3) if layout == "nhwc" else (1, 3, 3, 2)

        made = prepare(
            raw, Preprocess(mean=means, std=stds, layout=layout), TensorSpec("x", shape, "float32")
        )

        planes = np.moveaxis(made[0], -1, 0) if layout == "nhwc" else made[0]
        for channel in range(3):
            assert np.array_equal(planes[channel], (raw[..., channel] - means[channel]) / stds[channel])

    def test_an_array_in_the_models_layout_gets_its_means_on_the_channel_axis(self) -> None:
        raw = np.zeros((3, 8, 9), np.float32)
        declared = Preprocess(mean=(1.0, 2.0, 3.0), layout="nchw")

        made = prepare(raw, declared, TensorSpec("x", (1, 3, 8, 9), "float32"))

        assert made[0, :, 0, 0].tolist() == [-1.0, -2.0, -3.0]

    def test_bgr_turns_the_colours_round_before_the_means_are_taken_off(self) -> None:
        raw = picture(2, 2)

        made = prepare(raw, Preprocess(color="bgr", mean=(100.0, 0.0, 0.0)), image_input(2, 2))

        assert np.array_equal(made[0, ..., 0], raw[..., 2].astype(np.float32) - 100)
        assert np.array_equal(made[0, ..., 2], raw[..., 0])

    def test_grey_is_the_grey_that_pillow_makes(self) -> None:
        raw = picture(9, 7)

        made = prepare(raw, Preprocess(color="gray"), image_input(9, 7, channels=1, dtype="uint8"))

        assert np.array_equal(made[0, ..., 0], np.asarray(Image.fromarray(raw).convert("L")))

    def test_grey_images_become_rgb_where_it_is_declared(self) -> None:
        raw = picture(4, 4, channels=1)

        made = prepare(raw, Preprocess(color="rgb"), image_input(4, 4))

        assert all(np.array_equal(made[0, ..., channel], raw[..., 0]) for channel in range(3))

    def test_rgb_drops_the_alpha_channel(self) -> None:
        raw = picture(4, 4, channels=4)

        made = prepare(raw, Preprocess(color="rgb"), image_input(4, 4))

        assert np.array_equal(made[0], raw[..., :3])

    def test_resize_alone_gives_exactly_that_size(self) -> None:
        raw = picture(13, 31)

        made = prepare(raw, Preprocess(resize=(8, 20)), image_input(8, 20, dtype="uint8"))

        expected = np.asarray(Image.fromarray(raw).resize((20, 8), Image.Resampling.BILINEAR))
        assert np.array_equal(made[0], expected)

    @settings(max_examples=40)
    @given(height=st.integers(1, 90), width=st.integers(1, 90), short=st.integers(8, 40))
    def test_resize_with_crop_keeps_the_ratio_and_fills_the_crop(
        self, height: int, width: int, short: int
    ) -> None:
        declared = Preprocess(resize=(short, short), crop=(7, 8))

        made = prepare(picture(height, width), declared, image_input(7, 8))

        assert made.shape == (1, 7, 8, 3)

    @given(height=st.integers(5, 12), width=st.integers(5, 12), crop=st.integers(1, 5))
    def test_a_crop_is_taken_from_the_centre(self, height: int, width: int, crop: int) -> None:
        raw = picture(height, width)

        made = prepare(raw, Preprocess(crop=(crop, crop)), image_input(crop, crop, dtype="uint8"))

        above, left = (height - crop) // 2, (width - crop) // 2
        assert np.array_equal(made[0], raw[above : above + crop, left : left + crop])

    def test_float_images_are_resized_without_being_rounded(self) -> None:
        raw = picture(8, 8).astype(np.float32) / 255

        made = prepare(raw, Preprocess(resize=(4, 4)), image_input(4, 4))

        assert made.dtype == np.float32
        assert abs(float(made.mean()) - float(raw.mean())) < 0.01
        assert not np.array_equal(made, np.rint(made))

    @given(height=st.integers(1, 6), width=st.integers(1, 6))
    def test_nchw_is_nhwc_transposed(self, height: int, width: int) -> None:
        raw = picture(height, width)

        planar = prepare(raw, Preprocess(layout="nchw"), TensorSpec("x", (1, 3, height, width), "float32"))

        assert np.array_equal(
            planar.transpose(0, 2, 3, 1), prepare(raw, Preprocess(), image_input(height, width))
        )
        assert planar.flags.c_contiguous

    def test_a_picture_that_has_the_models_size_still_has_its_colours_turned(self) -> None:
        raw = picture(4, 4)

        made = prepare(raw, Preprocess(color="bgr"), image_input(4, 4, dtype="uint8"))

        assert np.array_equal(made[0], raw[..., ::-1])

    def test_a_quantized_input_takes_stored_values_untouched(self) -> None:
        spec = TensorSpec("x", (1, 4), "int8", Quantization((0.5,), (3,)))
        stored = np.array([1, -2, 3, 4], np.int8)

        assert np.array_equal(prepare(stored, Preprocess(), spec), stored[None])

    def test_a_quantized_input_is_given_floats_for_the_session_to_quantize(self) -> None:
        spec = TensorSpec("x", (1, 2, 2, 3), "uint8", Quantization((1 / 255,), (0,)))

        assert prepare(picture(2, 2), Preprocess(scale=1 / 255), spec).dtype == np.float32
        assert prepare(picture(2, 2), Preprocess(scale=1 / 255, dtype="uint8"), spec).dtype == np.uint8

    def test_calculated_values_are_rounded_and_clipped_to_an_integer_dtype(self) -> None:
        made = prepare(
            np.array([0.6, 300.0, -5.0], np.float32),
            Preprocess(scale=1.5, dtype="uint8"),
            TensorSpec("x", (1, 3), "uint8"),
        )

        assert made.tolist() == [[1, 255, 0]]

    def test_the_raw_sample_is_never_written_to(self) -> None:
        raw = np.ones((1, 4), np.float32)
        raw.flags.writeable = False

        prepare(
            raw, Preprocess(zero_point=1, scale=2, mean=(1,), std=(2,)), TensorSpec("x", (1, 4), "float32")
        )

        assert raw.tolist() == [[1.0] * 4]

    @pytest.mark.parametrize(
        ("raw", "declared", "shape", "remedy"),
        [
            ((32, 32, 3), Preprocess(), (1, 3, 32, 32), "declare layout=nchw"),
            ((32, 32, 3), Preprocess(layout="nchw"), (1, 32, 32, 3), "layout=nhwc"),
            ((32, 32, 3), Preprocess(), (1, 32, 32, 1), "declare color=gray"),
            ((32, 32, 4), Preprocess(), (1, 32, 32, 3), "declare color=rgb"),
            ((40, 50, 3), Preprocess(), (1, 32, 30, 3), "declare resize=32x30"),
            ((40, 50, 3), Preprocess(layout="nchw"), (1, 3, 32, 30), "declare resize=32x30"),
            ((224, 224, 3), Preprocess(), (1, 3, 128, 128), "declare layout=nchw resize=128"),
            ((40, 50, 3), Preprocess(), (1, 1, 32, 32), "declare layout=nchw color=gray resize=32"),
            ((3, 32, 32), Preprocess(), (1, 32, 32, 3), "channels first, pre-processing takes [H,W,C]"),
            ((49, 10, 7), Preprocess(), (1, 32, 32, 3), "these data are not this model's"),
            ((5, 7), Preprocess(), (1, 8), "the model takes (8)"),
            ((5, 32, 32, 3), Preprocess(), (1, 32, 32, 3), "batch of 5; pass one sample at a time"),
        ],
    )
    def test_a_sample_of_another_shape_is_refused_with_what_to_declare(
        self, raw: tuple[int, ...], declared: Preprocess, shape: tuple[int, ...], remedy: str
    ) -> None:
        with pytest.raises(InputShapeError) as caught:
            prepare(np.zeros(raw, np.uint8), declared, TensorSpec("image", shape, "float32"))

        assert remedy in str(caught.value)

    def test_values_that_are_no_picture_get_no_colour_hint(self) -> None:
        features = np.zeros((49, 10, 1), np.float32)
        with pytest.raises(InputShapeError, match="takes 3 channels, these data have 1: they are not this"):
            prepare(features, Preprocess(), image_input(96, 96))

    def test_a_crop_larger_than_the_image_is_refused(self) -> None:
        with pytest.raises(InputShapeError, match="cannot crop 8x8 out of an image of 4x9"):
            prepare(picture(4, 9), Preprocess(crop=(8, 8)), image_input(8, 8))

    def test_two_means_for_three_channels_are_refused(self) -> None:
        with pytest.raises(UsageError, match="mean has 2 values, the sample has 3 channels"):
            prepare(picture(4, 4), Preprocess(mean=(1.0, 2.0)), image_input(4, 4))

    def test_without_pillow_a_resize_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "PIL", None)

        with pytest.raises(EngineMissingError, match=r"pip install 'edgeml-core\[images\]'"):
            prepare(picture(4, 4), Preprocess(resize=(2, 2)), image_input(2, 2))

    def test_without_pillow_everything_but_a_resize_works(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "PIL", None)

        made = prepare(picture(4, 4), Preprocess(color="gray", crop=(2, 2)), image_input(2, 2, channels=1))

        assert made.shape == (1, 2, 2, 1)


OUTPUTS = {
    "scores": np.array([[0.1, 2.0, 0.5, 1.0]], np.float32),
    "boxes": np.zeros((1, 5, 4), np.float32),
}


class TestFinish:
    def test_nothing_declared_gives_the_outputs_as_they_are(self) -> None:
        told = finish(OUTPUTS, Postprocess())

        assert told.outputs == OUTPUTS
        assert told.classes == ()

    def test_argmax_gives_the_class_its_label_and_its_score(self) -> None:
        told = finish(OUTPUTS, Postprocess(argmax=True), labels=["a", "b", "c", "d"])

        assert (told.index, told.label, told.score) == (1, "b", 2.0)

    def test_top_gives_the_best_classes_in_order(self) -> None:
        told = finish(OUTPUTS, Postprocess(argmax=True, top=3))

        assert [scored.index for scored in told.classes] == [1, 3, 2]
        assert [scored.label for scored in told.classes] == [None, None, None]

    def test_equal_scores_stand_in_the_order_of_the_classes(self) -> None:
        told = finish({"y": np.array([[1, 3, 3]], np.uint8)}, Postprocess(argmax=True, top=3))

        assert [scored.index for scored in told.classes] == [1, 2, 0]

    def test_a_background_at_output_0_is_class_minus_one_without_a_label(self) -> None:
        declared = Postprocess(argmax=True, label_offset=1)

        assert finish({"y": np.array([[0.1, 0.9]])}, declared, ["cat"]).label == "cat"
        background = finish({"y": np.array([[0.9, 0.1]])}, declared, ["cat"])
        assert (background.index, background.label) == (-1, None)

    def test_several_classes_need_no_argmax_besides(self) -> None:
        assert finish(OUTPUTS, Postprocess(top=3)) == finish(OUTPUTS, Postprocess(argmax=True, top=3))

    def test_softmax_is_applied_to_the_declared_output_only(self) -> None:
        outputs = {"a": np.array([[1000.0, 1000.0]], np.float32), "b": np.ones((1, 2), np.float32)}

        told = finish(outputs, Postprocess(softmax=True, output="a"))

        assert told.outputs["a"].tolist() == [[0.5, 0.5]]
        assert told.outputs["b"].tolist() == [[1.0, 1.0]]
        assert outputs["a"].tolist() == [[1000.0, 1000.0]]

    @given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20))
    def test_softmax_sums_to_one_and_keeps_the_order(self, scores: list[float]) -> None:
        made = softmax(np.array([scores], np.float32))

        assert np.isclose(made.sum(), 1, atol=1e-5)
        assert made[0, int(np.argmax(np.array(scores, np.float32)))] == made.max()

    def test_an_output_that_is_not_there_is_refused_by_name(self) -> None:
        with pytest.raises(UsageError, match="no output 'logits'; outputs are: scores, boxes"):
            finish(OUTPUTS, Postprocess(argmax=True, output="logits"))

    def test_argmax_of_something_that_is_no_vector_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"'boxes' has shape \(1, 5, 4\)"):
            finish(OUTPUTS, Postprocess(argmax=True, output="boxes"))

    def test_a_class_without_argmax_declared_is_refused(self) -> None:
        with pytest.raises(UsageError, match="set argmax"):
            _ = finish(OUTPUTS, Postprocess()).label
