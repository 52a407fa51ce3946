"""What the real compiler wrote and logged is read, and agrees."""

from __future__ import annotations

import csv

import pytest

from edgeml.testing.coral.compiled import write_compiled
from tests.fake_edgetpu_compiler import FAILED, Run, fake_compiler, success
from tests.integration.coral_compile.calling import answer, call


@pytest.mark.data
def test_what_the_real_compiler_wrote_and_logged_is_read_and_agrees(data_dir, tmp_path) -> None:
    folder = data_dir / "edgetpu_pairs"
    with (folder / "manifest.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert len(rows) >= 50
    for number, row in enumerate(rows):
        source, log = folder / f"{row['id']}.tflite", folder / f"{row['id']}_edgetpu.log"
        text = log.read_text() if log.is_file() else ""
        total, mapped = int(row["total_ops"]), int(row["expected_mapped_ops"])
        sizes = {name: f"{int(row[f'{key}_param_bytes']) / 1024:.2f}KiB"
                 for name, key in (("on_chip", "on_chip"), ("streamed", "off_chip"))}  # fmt: skip
        run = Run(
            success(total, mapped, **sizes), compiled=str(folder / f"{row['id']}_edgetpu.tflite"), log=text
        )
        fake = fake_compiler(tmp_path / str(number), run)
        found = answer(source, "--compiler", fake.path, "--output", tmp_path / "out")
        assert (found["mapped"], found["total"]) == (mapped, total), row["id"]
        assert found["min_runtime"] == int(row["min_runtime"]), row["id"]
        assert found["subgraphs"] == 1, row["id"]
        assert found["disagreements"] == [], row["id"]
        if text:
            assert sum(one["count"] for one in found["operators"]) == total, row["id"]
            assert len(found["cpu_operators"]) == sum(
                one["count"] for one in found["operators"] if one["reason"] != "Mapped to Edge TPU"
            )


@pytest.mark.data
def test_a_log_that_says_otherwise_than_the_file_is_told_of(install, data_dir, tmp_path) -> None:
    """The log of one model beside what was made of another is what a mix-up looks like."""
    folder = data_dir / "edgetpu_pairs"
    name = "jorgitou98__N100-nMACs1485619200_quant__66279fe"
    log = (
        (folder / f"{name}_edgetpu.log")
        .read_text()
        .replace("CONV_2D                        5", "CONV_2D                        4")
    )
    install(Run(success(6, 6), compiled=str(folder / f"{name}_edgetpu.tflite"), log=log))
    found = answer(folder / f"{name}.tflite", "--output", tmp_path / "out")
    about = {one["about"]: (one["file"], one["compiler"]) for one in found["disagreements"]}
    assert about["operators in the log"] == (6, 5)
    assert about["operators on the Edge TPU in the log"] == (5, 4)
    assert about["bytes of parameters on the chip"][1] == 64
    text = call(folder / f"{name}.tflite", "--output", tmp_path / "out").stdout
    assert "they do not agree: operators in the log: 6 by the file, 5 by the compiler" in text


@pytest.mark.data
def test_what_was_predicted_otherwise_is_told_of(install, data_dir, tmp_path) -> None:
    """Of a mapping that stops early, as a search makes it, only the second attempt is expected to."""
    folder = data_dir / "edgetpu_pairs"
    name = "google-coral__deeplabv3_mnv2_dm05_pascal_quant__cdc17e7"
    other = "google-coral__deeplabv3_mnv2_dm05_pascal_quant__9ebaa5a"
    for one in (name, other):
        assert (folder / f"{one}.tflite").is_file()
    whole = write_compiled(folder / f"{name}.tflite", tmp_path / "all.tflite")
    fake = install(Run(success(72, 72), compiled=str(whole)))
    (only,) = answer(folder / f"{name}.tflite", "--output", tmp_path / "out")["disagreements"]
    assert only == {"about": "operators on the Edge TPU", "file": 72, "compiler": None, "predicted": 64}
    again = [Run(FAILED.format(said="")), Run(success(72, 72), compiled=str(whole))]
    searching = fake_compiler(tmp_path / "again", *again)
    found = answer(folder / f"{name}.tflite", "--compiler", searching.path, "--output", tmp_path / "out")
    assert found["disagreements"] == []
    assert len(fake.calls) == 1
