"""Samples from every kind of source: what they become, and what is said of data that cannot be used."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeml.arrays import Array
from edgeml.data import Dataset, open_data
from edgeml.errors import DataError, EngineMissingError, UsageError
from edgeml.preprocess import Preprocess
from edgeml.tensors import TensorSpec

VECTOR = (TensorSpec("x", (None, 4), "float32"),)
PICTURE = (TensorSpec("image", (1, 8, 8, 3), "float32"),)
TWO = (TensorSpec("a", (1, 2), "float32"), TensorSpec("b", (1, 3), "float32"))


def values(data: Dataset, name: str = "x") -> list[list[float]]:
    return [sample[name][0].ravel().tolist() for sample in data]


def save_picture(path: Path, seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Array:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    picture.save(path)
    return np.asarray(picture.convert("RGB"))


@pytest.fixture
def rows() -> Array:
    return np.arange(40, dtype=np.float32).reshape(10, 4)


class TestEverySource:
    def test_samples_have_a_batch_dimension_and_the_models_dtype(self, tmp_path: Path, rows: Array) -> None:
        np.save(tmp_path / "x.npy", rows.astype(np.float64))

        data = open_data(tmp_path / "x.npy", inputs=VECTOR)

        assert len(data) == 10
        for sample, row in zip(data, rows, strict=True):
            assert sample["x"].shape == (1, 4)
            assert sample["x"].dtype == np.float32
            assert np.array_equal(sample["x"][0], row)

    def test_it_can_be_read_again_and_again(self, tmp_path: Path, rows: Array) -> None:
        np.savez(tmp_path / "d.npz", x=rows)

        data = open_data(tmp_path / "d.npz", inputs=VECTOR)

        assert values(data) == values(data) == rows.tolist()

    def test_two_readers_of_one_dataset_do_not_disturb_each_other(self, tmp_path: Path, rows: Array) -> None:
        np.savez(tmp_path / "d.npz", x=rows)
        data = open_data(tmp_path / "d.npz", inputs=VECTOR)

        pairs = [(a["x"].tolist(), b["x"].tolist()) for a, b in zip(data, data, strict=True)]

        assert all(a == b for a, b in pairs)

    def test_a_limit_takes_samples_spread_over_the_whole_source(self, tmp_path: Path, rows: Array) -> None:
        np.savez(tmp_path / "d.npz", x=rows, y=np.arange(10))

        data = open_data(tmp_path / "d.npz", inputs=VECTOR, limit=4)

        assert len(data) == 4
        assert data.labels is not None
        assert data.labels.tolist() == [0, 2, 5, 7]
        assert values(data) == rows[[0, 2, 5, 7]].tolist()

    def test_a_limit_beyond_the_data_takes_them_all(self, tmp_path: Path, rows: Array) -> None:
        np.save(tmp_path / "x.npy", rows)

        assert len(open_data(tmp_path / "x.npy", inputs=VECTOR, limit=1000)) == 10

    def test_raw_samples_are_what_stands_in_the_source(self, tmp_path: Path) -> None:
        stored = np.arange(8, dtype=np.int8).reshape(2, 4)
        np.savez(tmp_path / "d.npz", x=stored)

        data = open_data(tmp_path / "d.npz", inputs=VECTOR, preprocess=Preprocess(zero_point=3, scale=0.5))

        raw = list(data.raw())
        assert raw[1]["x"].dtype == np.int8
        assert np.array_equal(raw[1]["x"], stored[1])
        assert values(data)[1] == [0.5, 1.0, 1.5, 2.0]

    def test_the_hash_follows_content_selection_and_processing(self, tmp_path: Path, rows: Array) -> None:
        np.save(tmp_path / "x.npy", rows)
        np.save(tmp_path / "same.npy", rows)
        np.save(tmp_path / "other.npy", rows + 1)

        def sha256(name: str, limit: int | None = None, preprocess: Preprocess = Preprocess()) -> str:
            return open_data(tmp_path / name, inputs=VECTOR, limit=limit, preprocess=preprocess).sha256

        assert sha256("x.npy") == sha256("same.npy")
        assert len({sha256("x.npy"), sha256("other.npy"), sha256("x.npy", limit=3)}) == 3
        assert sha256("x.npy") != sha256("x.npy", preprocess=Preprocess(scale=2.0))

    def test_a_sample_that_does_not_fit_is_named(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((3, 5), np.float32))

        with pytest.raises(DataError, match=r"x\.npy, sample 0: input 'x': a sample gives \(5,\)"):
            list(open_data(tmp_path / "x.npy", inputs=VECTOR))

    @pytest.mark.parametrize("source", ["nowhere.npz", "nowhere/", "no-module:f", "a.npz:x,y"])
    def test_a_source_that_is_not_there_is_named(self, source: str) -> None:
        with pytest.raises(DataError, match="no such file or folder"):
            open_data(source, inputs=VECTOR)

    def test_a_file_of_another_kind_says_what_is_known(self, tmp_path: Path) -> None:
        (tmp_path / "data.parquet").write_bytes(b"PAR1")

        with pytest.raises(DataError, match=r"known: \.npz, \.npy, \.csv"):
            open_data(tmp_path / "data.parquet", inputs=VECTOR)

    def test_a_mapping_for_an_input_that_is_not_there_is_wrong_usage(
        self, tmp_path: Path, rows: Array
    ) -> None:
        np.save(tmp_path / "x.npy", rows)

        with pytest.raises(UsageError, match="no input 'z'; inputs are: x"):
            open_data(tmp_path / "x.npy", inputs=VECTOR, keys={"z": "x"})

    def test_a_limit_of_nothing_is_wrong_usage(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="at least 1"):
            open_data(tmp_path, inputs=VECTOR, limit=0)


class TestNpz:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_the_only_array_is_the_only_input(self, tmp_path: Path, rows: Array, save: object) -> None:
        save(tmp_path / "d.npz", anything=rows, scale=np.float32(0.5))  # type: ignore[operator] # two functions

        assert values(open_data(tmp_path / "d.npz", inputs=VECTOR)) == rows.tolist()

    @pytest.mark.parametrize("key", ["y", "labels", "label"])
    def test_labels_are_found_by_their_usual_names(self, tmp_path: Path, rows: Array, key: str) -> None:
        np.savez(tmp_path / "d.npz", **{"x": rows, key: np.arange(10)})

        labels = open_data(tmp_path / "d.npz", inputs=VECTOR).labels

        assert labels is not None
        assert labels.tolist() == list(range(10))

    def test_keys_behind_the_file_name_choose_arrays(self, tmp_path: Path, rows: Array) -> None:
        np.savez(tmp_path / "d.npz", train=rows + 1, test=rows, train_y=np.zeros(10), test_y=np.ones(10))

        data = open_data(f"{tmp_path}/d.npz:test,test_y", inputs=VECTOR)

        assert data.labels is not None
        assert data.labels.tolist() == [1.0] * 10
        assert values(data) == rows.tolist()

    def test_several_inputs_come_from_arrays_of_their_names(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", b=np.ones((5, 3)), a=np.zeros((5, 2)), y=np.arange(5))

        data = open_data(tmp_path / "d.npz", inputs=TWO)

        assert [sorted(sample) for sample in data] == [["a", "b"]] * 5
        assert all(sample["b"].shape == (1, 3) for sample in data)

    def test_several_inputs_can_be_mapped_to_keys(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", first=np.zeros((5, 2)), second=np.ones((5, 3)))

        data = open_data(tmp_path / "d.npz", inputs=TWO, keys={"a": "first", "b": "second"})

        assert next(iter(data))["b"].tolist() == [[1.0, 1.0, 1.0]]

    def test_class_names_become_indices_in_sorted_order(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", x=np.zeros((3, 4)), y=np.array(["yes", "no", "yes"]))

        data = open_data(tmp_path / "d.npz", inputs=VECTOR)

        assert data.labels is not None
        assert (data.labels.tolist(), data.label_names) == ([1, 0, 1], ("no", "yes"))

    def test_a_single_sample_without_a_batch_counts_as_one(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", x=np.arange(4))

        assert values(open_data(tmp_path / "d.npz", inputs=VECTOR)) == [[0, 1, 2, 3]]

    @pytest.mark.parametrize("order", ["C", "F"])
    @pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "|u1", ">i2"])
    def test_any_order_of_bytes_and_axes_is_read(
        self, tmp_path: Path, rows: Array, order: str, dtype: str
    ) -> None:
        stored = np.asarray(rows, dtype, order=order)  # type: ignore[call-overload] # parametrized order
        np.savez_compressed(tmp_path / "d.npz", x=stored)

        assert values(open_data(tmp_path / "d.npz", inputs=VECTOR, limit=3)) == rows[[0, 3, 6]].tolist()

    def test_pictures_without_a_channel_are_samples_not_one_picture(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", x=np.zeros((6, 28, 28), np.uint8))

        data = open_data(tmp_path / "d.npz", inputs=(TensorSpec("x", (1, 28, 28, 1), "float32"),))

        assert len(data) == 6
        assert next(iter(data))["x"].shape == (1, 28, 28, 1)

    def test_wrong_keys_name_those_there_are(self, tmp_path: Path, rows: Array) -> None:
        np.savez(tmp_path / "d.npz", train=rows, test=rows)

        with pytest.raises(DataError, match=r"like input 'x'; there are: train, test\. Name it: d\.npz:KEY"):
            open_data(tmp_path / "d.npz", inputs=VECTOR)
        with pytest.raises(DataError, match="no array 'tset' for input 'x'; there are: train, test"):
            open_data(f"{tmp_path}/d.npz:tset", inputs=VECTOR)
        with pytest.raises(DataError, match="no array 'z'; there are: train, test"):
            open_data(f"{tmp_path}/d.npz:test,z", inputs=VECTOR)

    def test_one_key_for_several_inputs_is_wrong_usage(self, tmp_path: Path, rows: Array) -> None:
        np.savez(tmp_path / "d.npz", a=rows)

        with pytest.raises(UsageError, match=r"several inputs \(a, b\)"):
            open_data(f"{tmp_path}/d.npz:a", inputs=TWO)

    def test_labels_of_another_length_are_refused(self, tmp_path: Path, rows: Array) -> None:
        np.savez(tmp_path / "d.npz", x=rows, y=np.arange(9))

        with pytest.raises(DataError, match=r"d\.npz:y: 9 labels for 10 samples"):
            open_data(tmp_path / "d.npz", inputs=VECTOR)

    def test_a_labels_file_of_another_length_is_refused(self, tmp_path: Path, rows: Array) -> None:
        np.savez(tmp_path / "d.npz", x=rows)
        (tmp_path / "y.txt").write_text("cat\ndog\n")

        with pytest.raises(DataError, match=r"y\.txt: 2 labels for 10 samples"):
            open_data(tmp_path / "d.npz", inputs=VECTOR, labels=str(tmp_path / "y.txt"))

    def test_inputs_of_different_lengths_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", a=np.zeros((5, 2)), b=np.zeros((6, 3)))

        with pytest.raises(DataError, match="different numbers of samples: a 5, b 6"):
            open_data(tmp_path / "d.npz", inputs=TWO)

    def test_no_samples_at_all_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", x=np.zeros((0, 4), np.float32))

        with pytest.raises(DataError, match=r"d\.npz: holds no samples"):
            open_data(tmp_path / "d.npz", inputs=VECTOR)

    def test_a_file_cut_short_is_refused(self, tmp_path: Path, rows: Array) -> None:
        np.savez(tmp_path / "d.npz", x=rows)
        path = tmp_path / "d.npz"
        path.write_bytes(path.read_bytes()[:200])

        with pytest.raises(DataError, match=r"d\.npz: damaged, or not an npz"):
            open_data(path, inputs=VECTOR)

    def test_flipped_bytes_are_found_when_they_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "d.npz"
        np.savez(path, x=np.zeros((1000, 4), np.float32))
        content = bytearray(path.read_bytes())
        content[5000] ^= 0xFF
        path.write_bytes(content)

        with pytest.raises(DataError, match=r"d\.npz:x: damaged"):
            list(open_data(path, inputs=VECTOR))

    def test_a_header_that_claims_more_than_there_is_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.zeros((10, 4), np.float32))
        content = (tmp_path / "x.npy").read_bytes().replace(b"(10, 4)", b"(99, 4)")
        with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
            archive.writestr("x.npy", content)

        with pytest.raises(DataError, match="truncated or damaged: 160 of 1584 bytes"):
            open_data(tmp_path / "d.npz", inputs=VECTOR)


class TestNpy:
    def test_pickled_objects_are_refused_and_never_run(self, tmp_path: Path) -> None:
        marker = tmp_path / "ran"

        class Hostile:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return Path.touch, (marker,)  # type: ignore[return-value] # runs if it is unpickled

        np.save(tmp_path / "x.npy", np.array([Hostile()], object), allow_pickle=True)

        with pytest.raises(DataError, match="pickled Python objects"):
            open_data(tmp_path / "x.npy", inputs=VECTOR)
        assert not marker.exists()

    @pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"PK\x03\x04" * 9])
    def test_what_is_no_npy_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.npy").write_bytes(content)

        with pytest.raises(DataError, match=r"x\.npy: not a plain numpy array"):
            open_data(tmp_path / "x.npy", inputs=VECTOR)

    def test_truncated_data_are_refused_before_anything_is_read(self, tmp_path: Path, rows: Array) -> None:
        np.save(tmp_path / "x.npy", rows)
        path = tmp_path / "x.npy"
        path.write_bytes(path.read_bytes()[:-10])

        with pytest.raises(DataError, match="truncated or damaged: 150 of 160 bytes"):
            open_data(path, inputs=VECTOR)

    @pytest.mark.parametrize("array", [np.zeros(3, "c16"), np.array(["a"]), np.zeros(2, [("a", "i4")])])
    def test_what_is_not_a_plain_number_is_refused(self, tmp_path: Path, array: Array) -> None:
        np.save(tmp_path / "x.npy", array)

        with pytest.raises(DataError, match=r"x\.npy"):
            open_data(tmp_path / "x.npy", inputs=VECTOR)

    def test_a_key_behind_an_npy_is_wrong_usage(self, tmp_path: Path, rows: Array) -> None:
        np.save(tmp_path / "x.npy", rows)

        with pytest.raises(UsageError, match=r"only an \.npz or a \.py"):
            open_data(f"{tmp_path}/x.npy:x", inputs=VECTOR)


class TestImages:
    def test_class_folders_give_labels_in_sorted_order(self, tmp_path: Path) -> None:
        dog = save_picture(tmp_path / "dog" / "1.png", 1)
        save_picture(tmp_path / "cat" / "9.png", 2)
        save_picture(tmp_path / "cat" / "1.PNG", 3)

        data = open_data(tmp_path, inputs=PICTURE)

        assert data.labels is not None
        assert (data.labels.tolist(), data.label_names) == ([0, 0, 1], ("cat", "dog"))
        assert [data.name_of(index) for index in range(3)] == ["cat/1.PNG", "cat/9.png", "dog/1.png"]
        assert np.array_equal(list(data)[2]["image"][0], dog)

    def test_folders_that_are_numbers_are_the_class_indices(self, tmp_path: Path) -> None:
        for name in ("0", "2", "10"):
            save_picture(tmp_path / name / "a.png", 1)

        labels = open_data(tmp_path, inputs=PICTURE).labels

        assert labels is not None
        assert sorted(labels.tolist()) == [0, 2, 10]

    def test_the_models_own_order_of_classes_wins(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "cat" / "a.png", 1)
        save_picture(tmp_path / "dog" / "a.png", 2)

        labels = open_data(tmp_path, inputs=PICTURE, label_names=("dog", "cat")).labels

        assert labels is not None
        assert labels.tolist() == [1, 0]

    def test_a_folder_that_is_no_class_of_the_model_is_refused(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "fox" / "a.png", 1)

        with pytest.raises(DataError, match="class 'fox' is not one of the 2 labels"):
            open_data(tmp_path, inputs=PICTURE, label_names=("dog", "cat"))

    def test_a_flat_folder_has_no_labels_and_other_files_are_left_alone(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "b.bmp", 1)
        save_picture(tmp_path / "a.png", 2)
        (tmp_path / "README.md").write_text("about")
        (tmp_path / ".hidden.png").write_bytes(b"")

        data = open_data(tmp_path, inputs=PICTURE)

        assert data.labels is None
        assert [data.name_of(index) for index in range(len(data))] == ["a.png", "b.bmp"]

    def test_a_csv_labels_and_selects_the_files(self, tmp_path: Path) -> None:
        for index in range(4):
            save_picture(tmp_path / "images" / f"{index}.png", index)
        (tmp_path / "labels.csv").write_text("class_index,file\n7,3.png\n5,1.png\n")

        data = open_data(tmp_path / "images", inputs=PICTURE, labels=str(tmp_path / "labels.csv"))

        assert data.labels is not None
        assert data.labels.tolist() == [7, 5]
        assert [data.name_of(index) for index in range(2)] == ["3.png", "1.png"]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("file,label\nx.png,1\n", "lists 'x.png', which is not in"),
            ("file,label\n0.png,1\n0.png,2\n", "row 3: '0.png' is listed twice"),
            ("file,label\n0.png\n", "row 2: 1 cells, the header has 2"),
            ("file\n0.png\n", "needs a header and rows"),
            ("", "needs a header and rows"),
        ],
    )
    def test_a_wrong_labels_csv_says_where(self, tmp_path: Path, text: str, says: str) -> None:
        save_picture(tmp_path / "images" / "0.png", 0)
        (tmp_path / "labels.csv").write_text(text)

        with pytest.raises(DataError) as caught:
            open_data(tmp_path / "images", inputs=PICTURE, labels=str(tmp_path / "labels.csv"))

        assert says in str(caught.value)

    def test_a_pattern_takes_the_label_out_of_the_name(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "0230_n02105855.png", 1)
        save_picture(tmp_path / "0004_n01494475.png", 2)

        labels = open_data(tmp_path, inputs=PICTURE, labels=r"pattern:^(\d+)_").labels

        assert labels is not None
        assert labels.tolist() == [4, 230]

    @pytest.mark.parametrize("option", ["pattern:(", "pattern:no group", "something"])
    def test_a_labels_option_that_makes_no_sense_is_wrong_usage(self, tmp_path: Path, option: str) -> None:
        save_picture(tmp_path / "1.png", 1)

        with pytest.raises(UsageError, match="labels"):
            open_data(tmp_path, inputs=PICTURE, labels=option)

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
    def test_every_kind_of_picture_becomes_rgb(self, tmp_path: Path, mode: str) -> None:
        suffix = "tif" if mode == "CMYK" else "png"
        expected = save_picture(tmp_path / f"a.{suffix}", 1, mode=mode)

        (sample,) = open_data(tmp_path / f"a.{suffix}", inputs=PICTURE)

        assert np.array_equal(sample["image"][0], expected)

    @pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
    def test_an_unreadable_picture_is_named(self, tmp_path: Path, content: bytes) -> None:
        save_picture(tmp_path / "a.png", 1)
        (tmp_path / "b.png").write_bytes(content)

        with pytest.raises(DataError, match=r"b\.png: not a readable image"):
            list(open_data(tmp_path, inputs=PICTURE))

    def test_a_jpeg_cut_short_is_named(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "a.jpg", 1, size=(64, 64))
        whole = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])

        with pytest.raises(DataError, match=r"a\.jpg: not a readable image"):
            list(open_data(tmp_path, inputs=PICTURE))

    def test_sixteen_bit_pictures_are_refused_rather_than_clipped(self, tmp_path: Path) -> None:
        Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "a.png")

        with pytest.raises(DataError, match="more than 8 bits a channel"):
            list(open_data(tmp_path, inputs=PICTURE))

    def test_an_empty_folder_says_what_it_looked_for(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"holds no samples: no file ends in \.bmp"):
            open_data(tmp_path, inputs=PICTURE)

    def test_pictures_beside_folders_of_pictures_are_refused(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "a.png", 1)
        save_picture(tmp_path / "cat" / "a.png", 1)

        with pytest.raises(DataError, match=r"beside folders of files \(cat\)"):
            open_data(tmp_path, inputs=PICTURE)

    def test_a_model_of_several_inputs_takes_no_pictures(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "a.png", 1)

        with pytest.raises(DataError, match="a file is one input, this model has 2: a, b"):
            open_data(tmp_path, inputs=TWO)

    def test_without_pillow_it_says_how_to_get_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_picture(tmp_path / "a.png", 1)
        monkeypatch.setitem(sys.modules, "PIL", None)

        with pytest.raises(EngineMissingError, match=r"reading a\.png needs Pillow.*edgeml-core\[images\]"):
            list(open_data(tmp_path, inputs=PICTURE))


class TestFoldersOfArrays:
    def test_each_npy_is_one_sample_and_its_folder_the_class(self, tmp_path: Path, rows: Array) -> None:
        for index, name in enumerate(("yes", "no")):
            (tmp_path / name).mkdir()
            np.save(tmp_path / name / "a.npy", rows[index])

        data = open_data(tmp_path, inputs=VECTOR)

        assert values(data) == rows[[1, 0]].tolist()
        assert data.label_names == ("no", "yes")

    def test_beside_pictures_they_are_left_alone(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "a.png", 1)
        np.save(tmp_path / "labels.npy", np.array([3]))

        data = open_data(tmp_path, inputs=PICTURE, labels=str(tmp_path / "labels.npy"))

        assert len(data) == 1
        assert data.labels is not None
        assert data.labels.tolist() == [3]

    def test_the_labels_among_them_are_no_sample(self, tmp_path: Path, rows: Array) -> None:
        np.save(tmp_path / "a.npy", rows[0])
        np.save(tmp_path / "labels.npy", np.array([3]))

        assert len(open_data(tmp_path, inputs=VECTOR, labels=str(tmp_path / "labels.npy"))) == 1

    def test_a_damaged_one_is_named(self, tmp_path: Path, rows: Array) -> None:
        np.save(tmp_path / "a.npy", rows[0])
        (tmp_path / "b.npy").write_bytes(b"nothing")

        with pytest.raises(DataError, match=r"b\.npy: not a plain numpy array"):
            list(open_data(tmp_path, inputs=VECTOR))


class TestTables:
    def test_numeric_columns_are_the_input_and_label_is_the_label(self, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text("a,b,label,c,d\n1,2,cat,3,4\n\n5,6,dog,7,8\n")

        data = open_data(tmp_path / "d.csv", inputs=VECTOR)

        assert values(data) == [[1, 2, 3, 4], [5, 6, 7, 8]]
        assert data.labels is not None
        assert (data.labels.tolist(), data.label_names) == ([0, 1], ("cat", "dog"))

    def test_the_label_column_can_be_named(self, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text("price,a,b,c,d\n9.5,1,2,3,4\n")

        labels = open_data(tmp_path / "d.csv", inputs=VECTOR, labels="price").labels

        assert labels is not None
        assert labels.tolist() == [9.5]

    def test_without_a_header_columns_are_numbered(self, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text("1,2,3,4,0\n5,6,7,8,1\n")

        data = open_data(tmp_path / "d.csv", inputs=VECTOR, labels="4")

        assert values(data) == [[1, 2, 3, 4], [5, 6, 7, 8]]
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1]

    def test_several_inputs_take_the_columns_they_are_mapped_to(self, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text("p,q,r,s,t\n1,2,3,4,5\n")

        (sample,) = open_data(tmp_path / "d.csv", inputs=TWO, keys={"a": "p, q", "b": "t,s,r"})

        assert sample["a"].tolist() == [[1, 2]]
        assert sample["b"].tolist() == [[5, 4, 3]]

    def test_a_row_is_brought_to_the_models_shape(self, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text("1,2,3,4\n")

        (sample,) = open_data(tmp_path / "d.csv", inputs=(TensorSpec("x", (1, 2, 2, 1), "float32"),))

        assert sample["x"][0, :, :, 0].tolist() == [[1, 2], [3, 4]]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("a,b,c,d\n1,2,3,4\n1,two,3,4\n", "line 3, column 'b': 'two' is not a number"),
            ("a,b,c,d\n1,2,,4\n", "line 2, column 'c': is empty"),
            ("a,b,c,d\n1,2,3\n", "line 2: 3 cells, there are 4 columns"),
            ("a,b,c,d\n", "holds no samples"),
            ("", "holds no samples"),
            ("a,b\0,c,d\n1,2,\xff,4\n", "line 2, column 'c'"),
        ],
    )
    def test_what_cannot_be_used_is_named_by_row_and_column(
        self, tmp_path: Path, text: str, says: str
    ) -> None:
        (tmp_path / "d.csv").write_text(text, encoding="utf-8")

        with pytest.raises(DataError) as caught:
            list(open_data(tmp_path / "d.csv", inputs=VECTOR))

        assert says in str(caught.value)

    def test_a_column_that_is_not_there_names_the_others(self, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_text("a,b\n1,2\n")

        with pytest.raises(DataError, match="no column 'z'; columns are: a, b"):
            open_data(tmp_path / "d.csv", inputs=VECTOR, labels="z")

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "d.csv").write_bytes(b"a,b\n\xff\xfe,1\n")

        with pytest.raises(DataError, match="cannot be read as CSV"):
            open_data(tmp_path / "d.csv", inputs=VECTOR)


class TestFunctions:
    def source(self, folder: Path, body: str) -> str:
        (folder / "mine.py").write_text(f"import numpy as np\n\n{body}\n")
        return f"{folder}/mine.py:samples"

    def test_a_generator_function_is_called_again_for_each_pass(self, tmp_path: Path) -> None:
        source = self.source(
            tmp_path, "def samples():\n    for i in range(5):\n        yield np.full(4, i, np.float64)"
        )

        data = open_data(source, inputs=VECTOR)

        assert len(data) == 5
        assert values(data) == values(data) == [[float(i)] * 4 for i in range(5)]

    def test_a_function_in_the_working_folder_is_a_module(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "my_samples_module.py").write_text("def samples():\n    return [[1, 2, 3, 4]]\n")
        monkeypatch.chdir(tmp_path)

        assert values(open_data("my_samples_module:samples", inputs=VECTOR)) == [[1, 2, 3, 4]]
        assert str(tmp_path) not in sys.path

    def test_pairs_give_labels(self, tmp_path: Path) -> None:
        data = open_data(
            self.source(tmp_path, "def samples():\n    return [(np.zeros(4), 3), (np.ones(4), 1)]"),
            inputs=VECTOR,
        )

        assert data.labels is not None
        assert data.labels.tolist() == [3, 1]
        assert values(data) == [[0] * 4, [1] * 4]

    def test_dicts_go_to_the_inputs_of_their_names(self, tmp_path: Path) -> None:
        body = "def samples():\n    yield {'a': [1, 2], 'second': [3, 4, 5], 'other': 0}"

        (sample,) = open_data(self.source(tmp_path, body), inputs=TWO, keys={"b": "second"})

        assert sample["b"].tolist() == [[3, 4, 5]]
        assert sorted(sample) == ["a", "b"]

    def test_batches_are_taken_apart(self, tmp_path: Path) -> None:
        body = "def samples():\n    for i in (3, 2):\n        yield np.full((i, 4), i), np.arange(i)"

        data = open_data(self.source(tmp_path, body), inputs=VECTOR)

        assert [row[0] for row in values(data)] == [3, 3, 3, 2, 2]
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 2, 0, 1]

    def test_a_factory_of_iterators_is_called(self, tmp_path: Path) -> None:
        body = "def samples():\n    return lambda: iter([np.zeros(4), np.ones(4)])"

        assert len(list(open_data(self.source(tmp_path, body), inputs=VECTOR))) == 2

    def test_a_generator_that_runs_out_is_an_error_not_an_empty_pass(self, tmp_path: Path) -> None:
        body = "made = (np.zeros(4) for _ in range(3))\n\n\ndef samples():\n    return made"
        data = open_data(self.source(tmp_path, body), inputs=VECTOR)

        with pytest.raises(
            DataError, match="gave 3 samples at first and 0 now; it must give the same samples"
        ):
            list(data)

    def test_the_hash_follows_the_values(self, tmp_path: Path) -> None:
        body = "def samples():\n    return [np.full(4, {})]"

        first = open_data(self.source(tmp_path, body.format(1)), inputs=VECTOR).sha256
        again = open_data(self.source(tmp_path, body.format(1)), inputs=VECTOR).sha256
        other = open_data(self.source(tmp_path, body.format(22)), inputs=VECTOR).sha256

        assert first == again != other

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ("def other():\n    pass", "has no function 'samples'"),
            ("samples = 3", "has no function 'samples'"),
            ("def samples(:", "cannot import"),
            ("raise OSError('no disk')", "cannot import"),
            ("def samples():\n    raise ValueError('no camera')", "failed: ValueError: no camera"),
            ("def samples():\n    return 3", "gave int, it must give an iterable"),
            ("def samples():\n    return []", "holds no samples"),
            ("def samples():\n    return ['text']", "gave str, which is not an array of numbers"),
            ("def samples():\n    return [(1, 2, 3)]", "gave a tuple of 3"),
            ("def samples():\n    return [{'z': 1}]", "a sample has no 'x'; there are: z"),
            ("def samples():\n    return [([1] * 4, 1), [1] * 4]", "1 of 2 samples have a label"),
        ],
    )
    def test_what_goes_wrong_in_it_is_told(self, tmp_path: Path, body: str, says: str) -> None:
        with pytest.raises(DataError) as caught:
            open_data(self.source(tmp_path, body), inputs=VECTOR)

        assert says in str(caught.value)

    def test_several_inputs_need_dicts(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="yield dicts with the keys a, b"):
            open_data(self.source(tmp_path, "def samples():\n    return [[1, 2]]"), inputs=TWO)


PEAK = """
import resource, sys
import numpy as np
from edgeml.data import open_data
from edgeml.tensors import TensorSpec
data = open_data(sys.argv[1], inputs=(TensorSpec("x", (1, 64, 64, 3), "float32"),))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(1 for _ in data)
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path, suffix: str) -> None:
    """2,000 samples of 48 KiB are 96 MiB; reading them may take 8."""
    path = tmp_path / f"d.{suffix}"
    many = np.zeros((2000, 64, 64, 3), np.float32)
    np.save(path, many) if suffix == "npy" else np.savez_compressed(path, x=many)

    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)

    count, grown_kib = (int(word) for word in done.stdout.split())
    assert count == 2000
    assert grown_kib < 8 * 1024
