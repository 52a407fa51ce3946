"""Whether the first row of a CSV names the columns."""

import pytest

from edgeml.data import open_data, open_declared, read_data_config
from edgeml.errors import DataError, UsageError
from edgeml.tensors import TensorSpec

ROW = (TensorSpec("x", (1, 4), "float32"),)
REST = "1,2,3,4\n5,6,7,8\n"


def table(tmp_path, text, **options):
    path = tmp_path / "data.csv"
    path.write_text(text)
    return open_data(path, inputs=ROW, **options)


@pytest.mark.parametrize(("first", "count"), [("a,b,c,d\n", 2), ("9,9,9,9\n", 3), ("", 2)])
def test_names_only_are_a_header_and_numbers_only_a_sample(tmp_path, first, count):
    assert len(table(tmp_path, first + REST)) == count


def test_an_empty_cell_in_a_first_row_of_numbers_is_told_and_not_lost(tmp_path):
    data = table(tmp_path, "9,,9,9\n" + REST)
    assert len(data) == 3
    with pytest.raises(DataError, match="line 1, column '1': is empty"):
        list(data)


@pytest.mark.parametrize("first", ["0,1,2,3\n", "9,9,9,dog\n", "a,b,c,2020\n"])
def test_a_first_row_that_could_be_either_is_refused(tmp_path, first):
    with pytest.raises(DataError, match=r"may name the columns or be a sample; .* header = true"):
        table(tmp_path, first + REST)


@pytest.mark.parametrize(("header", "count"), [(True, 2), (False, 3)])
def test_the_declaration_decides(tmp_path, header, count):
    assert len(table(tmp_path, "0,1,2,3\n" + REST, header=header)) == count


def test_a_column_that_is_asked_for_makes_it_a_header(tmp_path):
    data = table(tmp_path, "0,1,2,3,kind\n1,2,3,4,0\n5,6,7,8,1\n", labels="kind")
    assert data.labels.tolist() == [0, 1]


def test_header_is_declared_in_the_data_file(tmp_path):
    (tmp_path / "data.csv").write_text("0,1,2,3\n" + REST)
    (tmp_path / "data.toml").write_text('[evaluation]\nsource = "data.csv"\nheader = true\n')
    declared = read_data_config(tmp_path / "data.toml").evaluation
    assert len(open_declared(declared, inputs=ROW)) == 2


def test_header_is_for_tables(tmp_path):
    with pytest.raises(UsageError, match=r"header is for a \.csv"):
        open_data(tmp_path, inputs=ROW, header=True)
