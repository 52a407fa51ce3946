"""What the Edge TPU compiler printed to others, read."""

from __future__ import annotations

import pytest
from edgeml_converters.coral.compiler_output import (
    OperatorRow,
    Size,
    major,
    mapped_of,
    read_problem,
    read_rows,
    read_said,
    read_version,
)
from hypothesis import given
from hypothesis import strategies as st

PARTIAL = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1524 ms.

Input model: efficientdet_coral_v2.tflite
Input size: 4.24MiB
Output model: efficientdet_coral_v2_edgetpu.tflite
Output size: 5.57MiB
On-chip memory used for caching model parameters: 4.21MiB
On-chip memory remaining for caching model parameters: 3.29MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 267
Operation log: efficientdet_coral_v2_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model
Number of operations that will run on Edge TPU: 264
Number of operations that will run on CPU: 3
See the operation log file for individual operation details.
Compilation child process completed within timeout period.
Compilation succeeded!
"""
TABLE = """
Operator                       Count      Status

RESIZE_NEAREST_NEIGHBOR        2          Mapped to Edge TPU
CONCATENATION                  11         Mapped to Edge TPU
CONCATENATION                  1          More than one subgraph is not supported
TRANSPOSE                      3          Operation is otherwise supported, but not mapped due to …
Compilation child process completed within timeout period.
"""
SEARCH = """Edge TPU Compiler version 16.0.384591198
Searching for valid delegate with step 10
Try to compile segment with 322 ops
Started a compilation timeout timer of 180 seconds.
ERROR: Restored original execution plan after delegate application failure.
Compilation failed: Compilation failed due to large activation tensors in model.
Compilation child process completed within timeout period.
Compilation failed!
Try to compile segment with 312 ops
Intermediate tensors: Reshape_5,Reshape_7
Started a compilation timeout timer of 180 seconds.
"""


def test_what_it_prints_of_a_model_that_it_compiled_in_part() -> None:
    said = read_said(PARTIAL)
    assert (said.version, said.milliseconds) == ("16.0.384591198", 1524)
    assert (said.subgraphs, said.total, said.mapped, said.on_cpu) == (1, 267, 264, 3)
    assert said.on_chip == Size(4414505, (1 << 20) / 100)
    assert said.streamed == Size(0, 0.01)
    assert said.remaining is not None
    assert said.remaining.bytes == 3449815
    assert said.rows == ()


def test_a_table_ends_where_rows_end_and_one_operator_may_have_several() -> None:
    rows = read_rows(PARTIAL + TABLE)
    assert [(row.name, row.count) for row in rows] == [
        ("RESIZE_NEAREST_NEIGHBOR", 2),
        ("CONCATENATION", 11),
        ("CONCATENATION", 1),
        ("TRANSPOSE", 3),
    ]
    assert rows[2].reason == "More than one subgraph is not supported"
    assert mapped_of(rows) == 13


def test_the_log_goes_before_the_table_that_was_printed() -> None:
    rows = "Operator    Count    Status\n\nADD   2      Mapped to Edge TPU\n"
    log = f"Edge TPU Compiler version 1.0.249710469\n\n{rows}"
    said = read_said(PARTIAL + TABLE, log)
    assert said.rows == (OperatorRow("ADD", 2, "Mapped to Edge TPU"),)
    assert said.version == "1.0.249710469"


def test_of_a_search_the_last_attempt_counts() -> None:
    found = read_said(SEARCH + TABLE + PARTIAL.replace("267", "311").replace("1524", "9") + TABLE)
    assert (found.total, found.milliseconds, len(found.rows)) == (311, 9, 4)


def test_sizes_may_be_rounded_or_cut() -> None:
    said = read_said("On-chip memory used for caching model parameters: 66.00KiB\n")
    assert said.on_chip is not None
    assert said.on_chip.is_of(67584)
    assert said.on_chip.is_of(67590)
    assert not said.on_chip.is_of(67700)


@pytest.mark.parametrize(
    ("line", "fault", "does"),
    [
        (
            "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'",
            "refused",
            "older TensorFlow Lite",
        ),
        ("ERROR: Op builtin_code out of range: 150. Are you using old TFLite binary?", "refused", "older"),
        (
            (
                "ERROR: Attempting to use … a graph that has dynamic-sized tensors.\n"
                "Compilation failed: Model failed in Tflite interpreter."
            ),
            "refused",
            "fix the shapes",
        ),
        (
            (
                "ERROR: Encountered unresolved custom op: Atan.\n"
                "Compilation failed: Model failed in Tflite interpreter."
            ),
            "refused",
            "custom operator",
        ),
        ("Invalid model: model.tflite\nModel could not be parsed", "refused", "older"),
        ("Compilation failed: Model failed in Tflite interpreter. Please ensure", "refused", "edgeml run"),
        (
            (
                "ERROR: Restored original execution plan after delegate application failure.\n"
                "Compilation failed: Compilation failed due to large activation tensors in model."
            ),
            "internal_error",
            "smaller input",
        ),
        (
            "libc++abi: terminating with uncaught exception of type std::out_of_range: vector",
            "internal_error",
            "",
        ),
        ("\nInternal compiler error. Aborting! ", "internal_error", "edgeml coral check"),
        ("Compilation child process timed out.", "timeout", "--timeout-s"),
        ("", "internal_error", "edgeml coral check"),
    ],
)
def test_why_it_gave_up(line: str, fault: str, does: str) -> None:
    end = "Compilation child process completed within timeout period.\nCompilation failed! \n"
    found = read_problem(
        f"Edge TPU Compiler version 16.0.384591198\n{line}\n" + ("" if fault == "timeout" else end)
    )
    assert found is not None
    assert found.fault == fault
    assert does in found.remedy
    assert not found.text.startswith("ERROR")


def test_a_model_that_compiled_has_no_problem() -> None:
    assert read_problem(PARTIAL + TABLE) is None
    assert read_problem("Edge TPU Compiler version 15.0.340273435\n") is None


def test_versions() -> None:
    assert read_version("no such thing") is None
    assert [major(one) for one in ("16.0.384591198", "2.1.302470888", None, "x.y")] == [16, 2, 0, 0]


@given(st.text(max_size=400))
def test_no_text_raises(text: str) -> None:
    read_said(PARTIAL + text, text + TABLE + text)
    read_problem(text)


@pytest.mark.parametrize("number", ["9" * 16, "9" * 6000])
def test_numbers_that_nothing_counts_are_not_said(number: str) -> None:
    title = "On-chip memory used for caching model parameters"
    said = read_said(f"Total number of operations: {number}\n{title}: {number}GiB\n")
    assert (said.total, said.on_chip) == (None, None)
    assert read_rows(TABLE.replace("          11  ", f"          {number}  "))[1:] == ()
    assert major(read_version(f"Edge TPU Compiler version {number}")) in {int("9" * 16), int("9" * 100)}


def test_a_version_is_told_without_what_a_terminal_obeys() -> None:
    assert read_version("Edge TPU Compiler version 16.0\x1b[31m.1") == "16.0"
