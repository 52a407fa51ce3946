"""Tables stay readable at any width: numbers are whole, what matters least leaves first."""

import io
import threading

import pytest
from rich.console import Console

from edgeml.figures import milliseconds, readable_size, shorten, shorten_glued
from edgeml.terminal import Column, fitting, print_table, printable, printable_lines, showing

COLUMNS = (
    Column("layer", ["MobileNetV2/expanded_conv_17/project/Conv2D1_prequant", "Relu"], is_name=True),
    Column("parameters", ["2,359,296", "0"], leaves=1),
    Column("load", ["12.3", "0"], leaves=2),
    Column("MACs", ["300,781,280", "0"]),
)


def printed(width):
    stream = io.StringIO()
    print_table(Console(file=stream, width=width, color_system=None), COLUMNS)
    return stream.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 300])
def test_numbers_are_never_cut(width):
    assert "300,781,280" in printed(width)
    assert "2,359,296" in printed(width) or "parameters" in printed(width).split("not shown")[1]


def test_the_least_important_column_leaves_first_and_the_table_says_so():
    assert [column.title for column in fitting(COLUMNS, 300)] == ["layer", "parameters", "load", "MACs"]
    assert [column.title for column in fitting(COLUMNS, 68)] == ["layer", "parameters", "MACs"]
    assert [column.title for column in fitting(COLUMNS, 50)] == ["layer", "MACs"]
    assert "not shown at this width: load" in printed(68)


def test_columns_of_one_title_keep_their_own_cells():
    columns = [Column("p50", ["1"]), Column("from", ["0"]), Column("p95", ["2"]), Column("from", ["1"])]
    assert [column.cells for column in fitting(columns, 80)] == [["1"], ["0"], ["2"], ["1"]]


def test_a_name_that_is_cut_keeps_its_beginning_and_more_of_its_end():
    (name, *_) = fitting(COLUMNS, 50)[0].cells
    assert name.startswith("MobileNet")
    assert name.endswith("project/Conv2D1_prequant")
    assert shorten("short", 16) == "short"
    assert len(shorten("x" * 99, 16)) == 16


@pytest.mark.parametrize(
    ("size", "shown"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (96_700, "96.7 kB"), (237_400, "237 kB"),
     (999_600, "1.0 MB"), (14_084_057, "14.1 MB"), (5_000_000_000_000, "5,000 GB")],
)  # fmt: skip
def test_a_size_is_shown_in_the_unit_that_suits_it(size, shown):
    assert readable_size(size) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0347, "0.035"), (9.996, "10.0"), (2.346, "2.35"), (99.96, "100"), (1234, "1,234")],
)
def test_a_time_has_three_digits(value, shown):
    assert milliseconds(value) == shown


def test_only_names_that_are_glued_together_are_cut_in_a_text():
    path = "/a/long/path/" * 9 + "model.onnx"
    glued = ";".join(f"functional_1/conv2d_{number}/BiasAdd" for number in range(9))
    cut = shorten_glued(f"{path}: not: {glued}, and more; look")
    assert cut.startswith(f"{path}: not: functional_1/co…")
    assert cut.endswith("conv2d_8/BiasAdd, and more; look")


def test_another_machine_cannot_write_to_the_terminal():
    assert printable("a\x1b[31mb\r\n") == "a�[31mb��"


def test_where_nobody_looks_no_line_is_shown_and_no_thread_draws_one(capsys):
    before = threading.active_count()
    with showing() as show:
        show("connecting to local:")
        assert threading.active_count() == before  # engines' chatter is caught with one thread alone
    assert capsys.readouterr().err == ""


def test_lines_stay_lines_where_control_characters_are_replaced():
    assert printable_lines("a\x1b[31m\n\tb") == "a�[31m\n b"
