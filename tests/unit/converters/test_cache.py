"""The step cache: whole or absent, and never in the way."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgeml_converters.evaluate.accuracy import Evaluation
from edgeml_converters.evaluate.spool import Spool
from edgeml_converters.formats.files import hash_tree, model_files, size_bytes
from edgeml_converters.variants import step_cache
from edgeml_converters.variants.judgements import Judgement, JudgementCache, judgement_key
from edgeml_converters.variants.step_cache import StepCache, content_key

import edgeml
from edgeml.converter import StepResult
from edgeml.findings import Finding
from edgeml.targets import host


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    artifact = folder / "model.onnx"
    artifact.write_bytes(b"weights")
    return folder, StepResult(
        artifact=artifact,
        tensor_names={"a": "b"},
        findings=(Finding("code", "info", "x", "y", "z"),),
        notes=("opset raised",),
        ranges={"x": (-1.0, 2.0)},
        versions={"onnx": "1"},
    )


def test_what_is_kept_is_found_again(tmp_path, made):
    folder, result = made
    cache = StepCache(tmp_path / "cache")
    assert cache.find("ab12") is None
    assert cache.keep("ab12", folder, result) is None
    found = cache.find("ab12")
    assert found.artifact.read_bytes() == b"weights"
    assert found.artifact.parent != folder
    assert (found.tensor_names, found.findings, found.notes) == (
        result.tensor_names,
        result.findings,
        result.notes,
    )
    assert found.ranges == {"x": (-1.0, 2.0)}


def test_a_damaged_entry_is_not_found(tmp_path, made):
    cache = StepCache(tmp_path / "cache")
    cache.keep("ab12", *made)
    cache.find("ab12").artifact.write_bytes(b"weight$")
    assert cache.find("ab12") is None
    cache.keep("ab12", *made)
    assert cache.find("ab12") is not None


def test_an_entry_with_another_digit_is_not_found(tmp_path, made):
    cache = StepCache(tmp_path / "cache")
    cache.keep("ab12", *made)
    entry = tmp_path / "cache/ab/ab12/step.json"
    entry.write_text(entry.read_text().replace("2.0", "3.0"))
    assert cache.find("ab12") is None


@pytest.fixture
def judged(tmp_path):
    """A cache with one finding, and its two files."""
    cache = JudgementCache(tmp_path / "judgements")
    golden = [{"scores": np.arange(10, dtype=np.float32)[None]}] * 8
    cache.keep("ab12", Judgement(Evaluation(300, 0.75, ()), golden))
    assert cache.find("ab12").evaluation.value == 0.75
    return cache, *(tmp_path / f"judgements/ab/ab12.{kind}" for kind in ("json", "npz"))


def test_a_finding_without_golden_samples_is_found_again(tmp_path):
    cache = JudgementCache(tmp_path / "judgements")
    cache.keep("ab12", Judgement(Evaluation(300, 0.75, ()), []))
    assert cache.find("ab12") == Judgement(Evaluation(300, 0.75, ()), [])


def test_a_file_that_goes_meanwhile_costs_no_finding(tmp_path):
    (tmp_path / "judgements/ab").mkdir(parents=True)
    (tmp_path / "judgements/ab/.ab34.json.x1").symlink_to("gone")  # it is listed, and not there
    cache = JudgementCache(tmp_path / "judgements")
    cache.keep("ab12", Judgement(Evaluation(300, 0.75, ()), []))
    assert cache.find("ab12") is not None


def test_a_finding_with_another_digit_is_not_found(judged):
    cache, evaluation, _ = judged
    evaluation.write_text(evaluation.read_text().replace("0.75", "0.85"))
    assert cache.find("ab12") is None


@pytest.mark.parametrize("at", [0, 40, 150, 300, -40, -3])
@pytest.mark.parametrize("cut", [False, True])
def test_a_finding_with_damaged_outputs_is_not_found(judged, at, cut):
    cache, _, golden = judged
    content = bytearray(golden.read_bytes())
    content[at] ^= 0xFF
    golden.write_bytes(content[:at] if cut else content)
    found = cache.find("ab12")
    assert found is None or np.array_equal(found.golden[0]["scores"][0], np.arange(10))


def test_the_same_step_kept_at_once_by_many_processes_is_kept_once_and_nobody_complains(tmp_path, made):
    keeper = (
        "import sys, pathlib\n"
        "from edgeml.converter import StepResult\n"
        "from edgeml_converters.variants.step_cache import StepCache\n"
        "root, folder = map(pathlib.Path, sys.argv[1:])\n"
        "for turn in range(40):\n"
        "    found = StepCache(root).keep(f'ab{turn}', folder, StepResult(artifact=folder / 'model.onnx'))\n"
        "    assert found is None, found\n"
    )
    folder, _ = made
    argv = [sys.executable, "-c", keeper, str(tmp_path / "cache"), str(folder)]
    running = [subprocess.Popen(argv) for _ in range(4)]
    assert [one.wait(timeout=60) for one in running] == [0, 0, 0, 0]
    assert len(list((tmp_path / "cache").glob("ab/*"))) == 40
    assert not list((tmp_path / "cache").glob("ab/.new-*"))


def test_half_an_entry_is_not_found(tmp_path, made):
    cache = StepCache(tmp_path / "cache")
    cache.keep("ab12", *made)
    (tmp_path / "cache/ab/ab12/step.json").write_text('{"artifact": ')
    assert cache.find("ab12") is None


def test_a_cache_that_cannot_be_written_is_only_a_finding(tmp_path, made):
    (tmp_path / "cache").write_text("a file stands where the folder should be")
    finding = StepCache(tmp_path / "cache").keep("ab12", *made)
    assert finding.code == "cache-not-written"
    assert finding.severity == "info"


def test_no_cache_keeps_nothing(made):
    assert StepCache(None).keep("ab12", *made) is None
    assert StepCache(None).find("ab12") is None


def test_the_oldest_entries_go(tmp_path, made, monkeypatch):
    monkeypatch.setattr("edgeml_converters.variants.step_cache.KEPT_ENTRIES", 2)
    cache = StepCache(tmp_path / "cache")
    for age, key in ((30, "aa01"), (20, "bb02"), (10, "cc03")):
        cache.keep(key, *made)
        folder = tmp_path / "cache" / key[:2] / key
        stamp = folder.stat().st_mtime - age
        os.utime(folder, (stamp, stamp))
    cache.keep("dd04", *made)
    assert [key for key in ("aa01", "bb02", "cc03", "dd04") if cache.find(key)] == ["cc03", "dd04"]


def age(cache: StepCache, key: str, by_s: float) -> None:
    entry = cache.root / key[:2] / key
    stamp = entry.stat().st_mtime - by_s
    os.utime(entry, (stamp, stamp))


@pytest.fixture
def small_cache(tmp_path, made, monkeypatch):
    """A cache with room for two entries, and three of them, the oldest first."""
    folder, _ = made
    (folder / "weights").write_bytes(bytes(100_000))
    cache = StepCache(tmp_path / "cache")
    for key, age_s in (("aa01", 7000), ("bb02", 4000), ("cc03", 3000)):
        cache.keep(key, *made)
        age(cache, key, age_s)
    monkeypatch.setattr("edgeml_converters.variants.step_cache.KEPT_BYTES", 250_000)
    return cache


def test_large_entries_go_but_for_those_of_the_last_hour(small_cache, made):
    small_cache.keep("dd04", *made)
    small_cache.keep("ee05", *made)
    keys = ("aa01", "bb02", "cc03", "dd04", "ee05")
    assert [key for key in keys if small_cache.find(key)] == ["cc03", "dd04", "ee05"]


def test_what_a_conversion_was_given_stays_as_long_as_it_runs(small_cache, made):
    found = small_cache.find("aa01")
    age(small_cache, "aa01", 9000)
    small_cache.keep("dd04", *made)
    assert found.artifact.exists()
    assert not small_cache.find("bb02")


def test_room_is_made_where_an_entry_finds_none(small_cache, made, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgeml_converters.variants.step_cache.shutil.copytree", full)
    assert small_cache.keep("dd04", *made).code == "cache-not-written"
    assert [key for key in ("aa01", "bb02", "cc03") if small_cache.find(key)] == ["bb02", "cc03"]


def test_what_a_killed_process_left_goes_with_the_next_step_kept(tmp_path, made):
    left = tmp_path / "cache" / "cd" / ".new-abandoned"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    StepCache(tmp_path / "cache").keep("ab12", *made)
    assert not left.exists()


def test_the_key_follows_content_and_not_order():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})


def test_a_mended_reader_of_data_ends_what_was_made_of_them(tmp_path, monkeypatch):
    core = tmp_path / "edgeml"
    shutil.copytree(Path(edgeml.__file__).parent, core, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(edgeml, "__file__", str(core / "__init__.py"))
    own_code = step_cache.own_code.__wrapped__  # without what it remembers
    before = own_code("quantize")
    assert own_code("quantize") == before != own_code("evaluate")
    for name in ("pipeline.py", "data/images.py"):
        (core / name).write_text((core / name).read_text() + "# mended\n")
        assert own_code("quantize") != before
        before = own_code("quantize")
    (core / "manifest.py").write_text("# reads no data")
    assert own_code("quantize") == before


def test_a_judgement_is_one_cpus(monkeypatch):
    here = judgement_key(artifact="a")
    assert judgement_key(artifact="a") == here
    for other in ({"name": "x86-64-v2"}, {"cpu_features": frozenset({"sse4_2"})}):
        machine = replace(host(), **other)
        monkeypatch.setattr("edgeml_converters.variants.judgements.host", lambda machine=machine: machine)
        assert judgement_key(artifact="a") != here


def test_a_tree_hash_sees_names_contents_and_the_weights_beside_an_ir(tmp_path):
    xml = tmp_path / "model.xml"
    xml.write_text("<net/>")
    before = hash_tree(xml)
    (tmp_path / "model.bin").write_bytes(b"1")
    with_weights = hash_tree(xml)
    (tmp_path / "model.bin").write_bytes(b"2")
    assert len({before, with_weights, hash_tree(xml)}) == 3
    whole = hash_tree(tmp_path)
    (tmp_path / "model.bin").rename(tmp_path / "other.bin")
    assert hash_tree(tmp_path) != whole


def test_external_data_of_an_onnx_model_count(tmp_path):
    weights = onnx.numpy_helper.from_array(np.zeros(64, np.float32), "w")
    graph = onnx.helper.make_graph([], "g", [], [], [weights])
    onnx.save(
        onnx.helper.make_model(graph),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    assert [file.name for file in model_files(tmp_path / "m.onnx")] == ["m.onnx", "m.data"]
    before = hash_tree(tmp_path / "m.onnx")
    (tmp_path / "m.data").write_bytes(b"\1" * 256)
    assert hash_tree(tmp_path / "m.onnx") != before
    assert size_bytes(tmp_path / "m.onnx") == (tmp_path / "m.onnx").stat().st_size + 256


@pytest.mark.parametrize("limit", [1 << 20, 100], ids=["memory", "file"])
def test_a_spool_gives_back_what_it_took_as_often_as_asked(tmp_path, monkeypatch, limit):
    monkeypatch.setattr("edgeml_converters.evaluate.spool.IN_MEMORY_BYTES", limit)
    rng = np.random.default_rng(0)
    samples = [
        {"a": rng.normal(size=(1, size)).astype(np.float32), "b": np.array([[size]])}
        for size in (3, 9, 5, 7, 2)
    ]
    spool = Spool(tmp_path / "spool", "hash")
    for sample in samples:
        spool.append(sample)
    spool.close()
    assert len(spool) == 5
    for _ in range(2):
        for given, kept in zip(samples, spool, strict=True):
            assert kept.keys() == given.keys()
            assert all(np.array_equal(kept[name], given[name]) for name in given)
    assert [one["b"].item() for one in spool.first(2)] == [3, 9]
    assert (tmp_path / "spool").exists() == (limit == 100)
