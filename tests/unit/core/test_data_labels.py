"""Labels that would shift, vanish or be taken for others: what is refused, and what is taken as classes."""

import numpy as np
import pytest
from PIL import Image

from edgeml.data import open_data
from edgeml.errors import DataError
from edgeml.tensors import TensorSpec

ROW = (TensorSpec("x", (1, 4), "float32"),)
PICTURE = (TensorSpec("image", (1, 8, 8, 3), "float32"),)
VALUES = np.arange(24, dtype=np.float32).reshape(6, 4)


def labelled(tmp_path, labels):
    path = tmp_path / "data.npz"
    np.savez(path, x=VALUES, y=labels)
    return open_data(path, inputs=ROW)


def pictures(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")


def test_labels_that_nobody_named_are_of_the_samples_that_they_are_as_many_as(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=VALUES, y=np.arange(6), c=VALUES[:2])
    assert open_data(f"{path}:c", inputs=ROW).labels is None
    assert open_data(f"{path}:x", inputs=ROW).labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_labels_that_are_not_as_many_as_the_samples_are_refused(tmp_path):
    with pytest.raises(DataError, match="5 labels for 6 samples"):
        labelled(tmp_path, np.arange(5))


@pytest.mark.parametrize("cell", ["", "  ", "NA", "nan", "NULL"])
def test_a_row_without_a_label_is_refused_by_its_line(tmp_path, cell):
    path = tmp_path / "data.csv"
    path.write_text(f"a,b,c,d,label\n1,2,3,4,0\n1,2,3,4,{cell}\n1,2,3,4,1\n")
    with pytest.raises(DataError, match="line 3, column 'label': label is"):
        open_data(path, inputs=ROW)


def test_a_class_called_na_is_one_where_the_names_hold_it(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("a,b,c,d,label\n1,2,3,4,EU\n1,2,3,4,NA\n")
    data = open_data(path, inputs=ROW, label_names=("NA", "EU"))
    assert data.labels.tolist() == [1, 0]


def test_an_empty_text_among_an_arrays_labels_is_refused(tmp_path):
    with pytest.raises(DataError, match="sample 1: label is empty"):
        labelled(tmp_path, np.array(["a", "", "b", "b", "a", "a"]))


@pytest.mark.parametrize(
    ("labels", "taken"),
    [
        (np.array([0, 1, 2, 0, 1, 2], np.float32), [0, 1, 2, 0, 1, 2]),
        (np.array([[0], [1], [2], [0], [1], [2]]), [0, 1, 2, 0, 1, 2]),
        (np.array([True, False, True, True, False, False]), [1, 0, 1, 1, 0, 0]),
        (np.array([-1, 1, 2, 0, 1, 2], np.float32), [-1, 1, 2, 0, 1, 2]),
        (np.array([[b"b"], [b"a"], [b"b"], [b"b"], [b"a"], [b"a"]]), [1, 0, 1, 1, 0, 0]),
    ],
)
def test_whole_numbers_of_any_dtype_and_one_column_are_classes(tmp_path, labels, taken):
    data = labelled(tmp_path, labels)
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == taken


def test_fractions_stay_values_and_one_hot_keeps_its_shape(tmp_path):
    assert labelled(tmp_path, np.arange(6) + 0.5).labels.dtype.kind == "f"
    assert labelled(tmp_path, np.eye(6, 4, dtype=np.float32)).labels.shape == (6, 4)


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_a_label_of_nan_is_refused_by_its_sample(tmp_path, lost):
    with pytest.raises(DataError, match="the label of sample 2 is NaN or infinite"):
        labelled(tmp_path, np.array([0, 1, lost, 1, 0, 1]))


def test_labels_of_another_number_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeml.data.labels.read_whole", lambda _: pytest.fail("was read"))
    with pytest.raises(DataError, match="100000 labels for 6 samples"):
        labelled(tmp_path, np.zeros(100_000))


def test_what_would_be_read_whole_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeml.data.arrays.LARGEST_SAMPLE_BYTES", 1000)
    with pytest.raises(DataError, match=r"y: has 4800 bytes and would be read whole"):
        labelled(tmp_path, np.zeros((6, 100)))
    np.savez(tmp_path / "fortran.npz", x=np.asfortranarray(np.zeros((100, 4), np.float32)))
    with pytest.raises(DataError, match="save it in C order"):
        list(open_data(tmp_path / "fortran.npz", inputs=ROW))


def listed(tmp_path, text):
    if not (tmp_path / "images").exists():
        pictures(tmp_path / "images", ["0", "1"])
    (tmp_path / "labels.csv").write_text(text)
    return open_data(tmp_path / "images", inputs=PICTURE, labels=str(tmp_path / "labels.csv"))


@pytest.mark.parametrize(
    "text",
    [
        "file,split,label\n0.png,9,0\n1.png,9,2\n",
        "id,class,file\n7,0,0.png\n8,2,1.png\n",
        "file,kind\n0.png,0\n1.png,2\n",
        "labels,name\n0,0.png\n2,1.png\n",
    ],
)
def test_files_and_labels_stand_in_the_columns_called_so(tmp_path, text):
    assert listed(tmp_path, text).labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,split,kind\n0.png,0,1\n", "no column called as labels are .*; columns are: file, split, kind"),
        ("file,label,class\n0.png,0,1\n", "several columns called as labels are"),
        ("file,path,label\n0.png,0,1\n", "several columns called as files are"),
        ("0.png,0\n1.png,2\n", "row 1 is a sample"),
        ("file,label\n0.png,0\n1.png,\n", "row 3: label is empty"),
    ],
)
def test_columns_that_leave_it_open_are_refused(tmp_path, text, told):
    with pytest.raises(DataError, match=told):
        listed(tmp_path, text)


def test_a_class_folder_without_samples_does_not_shift_the_others(tmp_path):
    root = tmp_path / "images"
    for name, files in (("ant", ["0"]), ("bee", []), ("cat", ["0"])):
        pictures(root / name, files)
    with pytest.raises(DataError, match="the folder 'bee' holds no samples"):
        open_data(root, inputs=PICTURE)
    data = open_data(root, inputs=PICTURE, label_names=("ant", "bee", "cat"))
    assert data.labels.tolist() == [0, 2]


def test_numbered_and_hidden_folders_may_be_empty(tmp_path):
    root = tmp_path / "images"
    for name, files in (("0", ["0"]), ("1", []), ("2", ["0"]), (".cache", [])):
        pictures(root / name, files)
    assert open_data(root, inputs=PICTURE).labels.tolist() == [0, 2]
