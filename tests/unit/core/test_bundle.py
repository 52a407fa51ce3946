"""The bundle: written whole and the same each time, read back, extracted, verified."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.bundle import Bundle, bundle_file_name, open_bundle, write_bundle
from edgeml.errors import BundleError, UnsafeFileError
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.tensors import TensorSpec

MODEL = "variants/litert-float32/model.tflite"
MANIFEST = Manifest(
    name="kws",
    release=1,
    inputs=(TensorSpec("x", (1, 4), "float32"),),
    outputs=(TensorSpec("y", (1, 2), "float32"),),
    variants=(Variant("litert-float32", "litert", "float32", (FileEntry(MODEL, 0, ""),), ("host",)),),
    files=(),
    labels="labels.txt",
)


@pytest.fixture(name="files")
def sources(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "sources"
    folder.mkdir()
    contents = {
        MODEL: b"weights" * 1000,
        "labels.txt": b"yes\nno\n",
        "record.json": b"{}",
        "README.md": b"# kws\n",
    }
    places = {}
    for place, (name, content) in enumerate(contents.items()):
        places[name] = folder / str(place)
        places[name].write_bytes(content)
    return places


@pytest.fixture(name="bundle")
def written(tmp_path: Path, files: dict[str, Path]) -> Bundle:
    write_bundle(tmp_path / "kws-1.edgeml", MANIFEST, files)
    return open_bundle(tmp_path / "kws-1.edgeml")


def test_what_is_written_is_read_back(tmp_path: Path, files: dict[str, Path]) -> None:
    path = tmp_path / bundle_file_name("kws", 1)
    filled = write_bundle(path, MANIFEST, files)
    bundle = open_bundle(path)
    assert bundle.manifest == filled
    assert set(bundle.names) == set(files)
    for name, place in files.items():
        assert bundle.read(name) == place.read_bytes()
    bundle.verify()
    assert filled.variants[0].files[0].size_bytes == 7000


def test_it_is_a_stored_zip_with_the_manifest_first_and_the_same_bytes_each_time(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    first, second = tmp_path / "a.edgeml", tmp_path / "b.edgeml"
    write_bundle(first, MANIFEST, files)
    os.utime(files[MODEL], (0, 0))
    write_bundle(second, MANIFEST, dict(reversed(files.items())))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == ["manifest.json", "record.json", "README.md", "labels.txt", MODEL]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None


def test_a_release_read_and_written_again_is_the_same_file(tmp_path: Path, bundle: Bundle) -> None:
    folder = bundle.extract(tmp_path / "out")
    again = tmp_path / "again.edgeml"
    write_bundle(again, bundle.manifest, {name: folder / name for name in bundle.names})
    assert again.read_bytes() == bundle.path.read_bytes()


def test_an_extracted_bundle_opens_as_a_folder(tmp_path: Path, bundle: Bundle) -> None:
    folder = open_bundle(bundle.extract(tmp_path / "out"))
    assert folder.is_folder
    assert not bundle.is_folder
    assert folder.manifest == bundle.manifest
    assert folder.read("labels.txt") == b"yes\nno\n"
    folder.verify()


def test_single_files_are_extracted(tmp_path: Path, bundle: Bundle) -> None:
    folder = bundle.extract(tmp_path / "out", ["labels.txt"])
    assert [place.name for place in folder.iterdir()] == ["labels.txt"]


def test_extraction_does_not_touch_a_folder_that_holds_something(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(BundleError, match="not an empty folder"):
        bundle.extract(tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


def test_an_unknown_name_lists_what_is_there(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"holds no file 'label\.txt'; it holds: variants/.*, labels\.txt"):
        bundle.read("label.txt")


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    (folder / "model").write_bytes(b"weights")
    (folder / "labels").write_bytes(b"yes\nno\n")
    path = folder / "kws.edgeml"
    filled = write_bundle(path, MANIFEST, {MODEL: folder / "model", "labels.txt": folder / "labels"})
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        bundle = open_bundle(path)
        bundle.verify()
    except (BundleError, UnsafeFileError):
        return
    assert {name: bundle.read(name) for name in (MODEL, "labels.txt")} == {
        MODEL: b"weights",
        "labels.txt": b"yes\nno\n",
    } or bundle.manifest != filled  # the manifest itself is signed at publishing, not hashed


def test_every_truncation_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    content = bundle.path.read_bytes()
    path = tmp_path / "cut.edgeml"
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(BundleError, match=r"cut\.edgeml"):
            open_bundle(path)


def test_truncation_says_how_much_is_there(tmp_path: Path, bundle: Bundle) -> None:
    content = bundle.path.read_bytes()
    path = tmp_path / "cut.edgeml"
    path.write_bytes(content[:5000])
    with pytest.raises(BundleError, match=r"truncated: 5000 of at least \d+ bytes"):
        open_bundle(path)


# --- what cannot be written


def test_an_entry_without_a_file_is_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    del files[MODEL]
    with pytest.raises(BundleError, match="which is not among the files to write"):
        write_bundle(tmp_path / "b.edgeml", MANIFEST, files)
    assert not (tmp_path / "b.edgeml").exists()


def test_a_file_other_than_listed_is_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    filled = write_bundle(tmp_path / "b.edgeml", MANIFEST, files)
    files[MODEL].write_bytes(b"other")
    with pytest.raises(BundleError, match="is not the file that the manifest lists"):
        write_bundle(tmp_path / "c.edgeml", filled, files)


@pytest.mark.parametrize("name", ["", "../kws", "a b", "a/b", "x" * 200])
def test_a_name_that_cannot_be_a_file_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="cannot be a bundle's name"):
        bundle_file_name(name, 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (replace(MANIFEST, labels="missing.txt"), "missing.txt is referred to"),
        (replace(MANIFEST, variants=MANIFEST.variants * 2), "stands there twice"),
        (replace(MANIFEST, release=-1), "a release is a counter"),
        (replace(MANIFEST, variants=(replace(MANIFEST.variants[0], files=()),)), "has no files"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    tmp_path: Path, files: dict[str, Path], changed: Manifest, said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        write_bundle(tmp_path / "b.edgeml", changed, files)


@pytest.mark.parametrize("option", ["cache_dir", "cache-dir", "library_path"])
def test_an_engine_option_that_names_a_place_is_refused(
    tmp_path: Path, files: dict[str, Path], option: str
) -> None:
    changed = replace(MANIFEST, variants=(replace(MANIFEST.variants[0], options={option: "elsewhere"}),))
    with pytest.raises(UnsafeFileError, match=f"variant litert-float32 sets {option}"):
        write_bundle(tmp_path / "b.edgeml", changed, files)


WRITER = """
import sys
from pathlib import Path
from edgeml.bundle import write_bundle
from edgeml.manifest import Manifest
write_bundle(Path(sys.argv[1]), Manifest("kws", 1, (), (), (), ()), {"big": Path(sys.argv[2])})
"""


def test_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "kws-1.edgeml"
    target.write_bytes(b"the old release")
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(1024**3)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(target), str(big)]) as process:
        if not _wait_for_write(process):
            pytest.fail("the writer ended before it was killed")
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [place.name for place in folder.iterdir()] == ["kws-1.edgeml"]
    assert target.read_bytes() == b"the old release"


def _wait_for_write(process: subprocess.Popen[bytes]) -> bool:
    """Wait until the process has written a megabyte, by its own counters."""
    while process.poll() is None:
        counters = Path(f"/proc/{process.pid}/io").read_text()
        written_bytes = int(counters.partition("wchar: ")[2].partition("\n")[0])
        if written_bytes > 1_000_000:
            return True
    return False


def test_a_size_limit_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(1_000_000))
    folder = tmp_path / "out"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(folder / "kws-1.edgeml"), str(big)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
    )
    assert "BundleError: cannot write" in done.stderr
    assert "the disk is full" in done.stderr
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this root may not mount a tmpfs")
    try:
        big = tmp_path / "big"
        big.write_bytes(bytes(1_000_000))
        with pytest.raises(BundleError, match="the disk is full"):
            write_bundle(disk / "kws-1.edgeml", Manifest("kws", 1, (), (), (), ()), {"big": big})
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
