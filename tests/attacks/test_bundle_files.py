"""Hostile bundles: each attack is a file made here, and each is refused before anything of it is used."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.errors import BundleError, ModelFileError, UnsafeFileError
from edgeml.formats import identify

CONTENT = b"yes\nno\n"


def entry(path: str, content: bytes = CONTENT) -> dict[str, Any]:
    return {"path": path, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def manifest(*files: dict[str, Any]) -> bytes:
    data = {"schema": 1, "name": "kws", "release": 1, "inputs": [], "outputs": [], "variants": []}
    return json.dumps(data | {"files": list(files)}).encode()


def write(
    path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.fixture(name="target")
def place(tmp_path: Path) -> Path:
    return tmp_path / "in" / "evil.edgeml"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "a/../../evil.txt",
        "/tmp/evil.txt",  # noqa: S108 - never written to
        "C:/evil.txt",
        "..\\evil.txt",
        "a//b",
        "./a",
        "a/./b",
        "line\nbreak",
    ],
)
def test_a_path_that_leaves_the_folder(target: Path, tmp_path: Path, name: str) -> None:
    write(target, ("manifest.json", manifest(entry(name))), (name, CONTENT))
    with pytest.raises(UnsafeFileError, match="refused"):
        open_bundle(target).extract(tmp_path / "out")
    assert sorted(place.name for place in tmp_path.iterdir()) == ["in"]


def test_a_path_that_leaves_the_folder_in_the_manifest_only(target: Path) -> None:
    write(target, ("manifest.json", manifest(entry("../evil.txt"))), ("evil.txt", CONTENT))
    with pytest.raises(UnsafeFileError, match="a path that leaves its folder"):
        open_bundle(target)


def test_a_symbolic_link(target: Path) -> None:
    write(target, ("manifest.json", manifest(entry("labels.txt"))), (link("labels.txt"), b"/etc/passwd"))
    with pytest.raises(UnsafeFileError, match="a link"):
        open_bundle(target)


def test_a_link_in_an_extracted_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest(entry("labels.txt")))
    (tmp_path / "secret").write_bytes(CONTENT)
    (folder / "labels.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeFileError, match="is a link"):
        open_bundle(folder)


def test_a_folder_that_is_a_link_in_an_extracted_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest(entry("a/labels.txt")))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "labels.txt").write_bytes(CONTENT)
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFileError, match="is a link"):
        open_bundle(folder)


def test_a_file_swapped_for_a_link_after_the_check(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest(entry("labels.txt")))
    (folder / "labels.txt").write_bytes(CONTENT)
    bundle = open_bundle(folder)
    (folder / "labels.txt").unlink()
    (tmp_path / "same").write_bytes(CONTENT)
    (folder / "labels.txt").symlink_to(tmp_path / "same")
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.read("labels.txt")


def test_a_named_pipe_in_an_extracted_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest(entry("labels.txt")))
    os.mkfifo(folder / "labels.txt")
    with pytest.raises(UnsafeFileError, match="special file"):
        open_bundle(folder)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(target: Path) -> None:
    write(
        target,
        ("manifest.json", manifest(entry("labels.txt"))),
        ("labels.txt", CONTENT),
        ("labels.txt", b"other!!"),
    )
    with pytest.raises(UnsafeFileError, match="twice"):
        open_bundle(target)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_manifests(target: Path) -> None:
    write(target, ("manifest.json", manifest()), ("manifest.json", manifest(entry("x"))))
    with pytest.raises(UnsafeFileError, match="twice"):
        open_bundle(target)


@pytest.mark.parametrize(
    "names",
    [("labels.txt", "labels.txt"), ("labels.txt", "LABELS.txt"), ("a", "a/b"), ("Manifest.json", "a")],
)
def test_two_entries_that_would_be_one_file(target: Path, names: tuple[str, str]) -> None:
    write(target, ("manifest.json", manifest(*map(entry, names))), *((name, CONTENT) for name in set(names)))
    with pytest.raises(BundleError, match="two files share the path"):
        open_bundle(target)


def test_a_zip_bomb(target: Path) -> None:
    zeros = bytes(64 * 1024 * 1024)
    write(
        target,
        ("manifest.json", manifest(entry("zeros", zeros))),
        ("zeros", zeros),
        method=zipfile.ZIP_DEFLATED,
    )
    assert target.stat().st_size < 100_000
    with pytest.raises(UnsafeFileError, match="zip bomb"):
        open_bundle(target)


def test_a_compressed_member(target: Path) -> None:
    write(
        target,
        ("manifest.json", manifest(entry("labels.txt"))),
        ("labels.txt", CONTENT),
        method=zipfile.ZIP_DEFLATED,
    )
    with pytest.raises(UnsafeFileError, match="a bundle is stored"):
        open_bundle(target)


def test_members_that_overlap(target: Path) -> None:
    """A flat zip bomb: many entries of the directory that point at the same bytes."""
    write(target, ("manifest.json", manifest()), ("a", bytes(1000)))
    content = target.read_bytes()
    start = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 1)
    end = content.index(b"PK\x05\x06")
    record = content[start:end]
    copies = b"".join(record.replace(b"a", bytes([letter]), 1) for letter in b"bcdefghij")
    tail = bytearray(content[end:])
    count = 2 + 9
    struct.pack_into("<HHI", tail, 8, count, count, struct.unpack_from("<I", tail, 12)[0] + len(copies))
    target.write_bytes(content[:end] + copies + bytes(tail))
    with pytest.raises(UnsafeFileError, match="its members claim"):
        open_bundle(target)


@pytest.mark.parametrize("claimed", [0, 6, 8, 2**40])
def test_a_size_that_differs(target: Path, claimed: int) -> None:
    listed = entry("labels.txt") | {"size_bytes": claimed}
    write(target, ("manifest.json", manifest(listed)), ("labels.txt", CONTENT))
    with pytest.raises(BundleError, match=f"has 7 bytes, the manifest says {claimed}"):
        open_bundle(target)


def test_sizes_in_the_zip_that_lie(target: Path) -> None:
    """Directory and manifest agree on a size that the member's own header contradicts."""
    listed = entry("labels.txt") | {"size_bytes": 3}
    write(target, ("manifest.json", manifest(listed)), ("labels.txt", CONTENT))
    content = bytearray(target.read_bytes())
    record = content.rindex(b"PK\x01\x02")
    struct.pack_into("<II", content, record + 20, 3, 3)
    target.write_bytes(content)
    with pytest.raises(BundleError, match=r"labels\.txt"):
        open_bundle(target).verify()


def test_another_content_of_the_same_size(target: Path) -> None:
    write(target, ("manifest.json", manifest(entry("labels.txt"))), ("labels.txt", b"no\nyes\n"))
    bundle = open_bundle(target)
    for use in (bundle.verify, lambda: bundle.read("labels.txt")):
        with pytest.raises(BundleError, match="damaged"):
            use()


def test_a_damaged_file_is_not_extracted(target: Path, tmp_path: Path) -> None:
    write(target, ("manifest.json", manifest(entry("labels.txt"))), ("labels.txt", b"no\nyes\n"))
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(target).extract(tmp_path / "out")
    assert sorted(place.name for place in tmp_path.iterdir()) == ["in"]


def test_a_file_that_is_not_in_the_manifest(target: Path) -> None:
    write(target, ("manifest.json", manifest()), ("run.sh", b"#!/bin/sh"))
    with pytest.raises(BundleError, match=r"'run\.sh' is not in the manifest"):
        open_bundle(target)


def test_a_folder_member(target: Path) -> None:
    write(target, ("manifest.json", manifest()), ("folder/", b""))
    with pytest.raises(BundleError, match="a bundle holds files only"):
        open_bundle(target)


def test_a_file_that_is_missing(target: Path) -> None:
    write(target, ("manifest.json", manifest(entry("labels.txt"))))
    with pytest.raises(BundleError, match=r"labels\.txt is in the manifest, but missing"):
        open_bundle(target)


def test_a_manifest_that_is_not_first(target: Path) -> None:
    write(target, ("labels.txt", CONTENT), ("manifest.json", manifest(entry("labels.txt"))))
    with pytest.raises(BundleError, match=r"its first file is not manifest\.json"):
        open_bundle(target)


def test_something_in_front_of_the_zip(target: Path) -> None:
    write(target, ("manifest.json", manifest()))
    target.write_bytes(b"#!/bin/sh\n" + target.read_bytes())
    with pytest.raises(BundleError, match=r"its first file is not manifest\.json"):
        open_bundle(target)


def test_a_name_with_a_null_byte(target: Path) -> None:
    write(target, ("manifest.json", manifest(entry("aXb"))), ("aXb", CONTENT))
    target.write_bytes(target.read_bytes().replace(b"aXb", b"a\x00b"))
    with pytest.raises(UnsafeFileError, match="control character"):
        open_bundle(target)


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("PK is not enough")


def _other_zip(path: Path) -> None:
    write(path, ("config.json", b"{}"))


@pytest.mark.parametrize("make", [_nothing, _text, _other_zip])
def test_a_file_that_is_no_bundle(target: Path, make: Callable[[Path], None]) -> None:
    make(target)
    with pytest.raises(BundleError, match=r"evil\.edgeml"):
        open_bundle(target)


def test_no_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        open_bundle(tmp_path / "nothing.edgeml")
    with pytest.raises(BundleError, match="is not a bundle: it holds no manifest"):
        open_bundle(tmp_path / "in")


def test_a_named_pipe_is_refused_without_waiting_for_it(target: Path) -> None:
    os.mkfifo(target)
    with pytest.raises(BundleError, match="a pipe or device"):
        open_bundle(target)
    with pytest.raises(ModelFileError, match="a pipe or device"):
        identify(target)


@pytest.mark.parametrize("name", ["../v", "", "a/b", "\x1b[2J", "."])
def test_a_variant_whose_name_is_no_folders(target: Path, name: str) -> None:
    shape = json.loads(manifest())
    shape["variants"] = [
        {"name": name, "runtime": "litert", "scheme": "float32", "files": [entry("m")], "targets": []}
    ]
    write(target, ("manifest.json", json.dumps(shape).encode()), ("m", CONTENT))
    with pytest.raises(BundleError, match="a name that no folder should have"):
        open_bundle(target)


def test_control_characters_do_not_reach_the_terminal(target: Path) -> None:
    shape = json.loads(manifest())
    shape["inputs"] = [{"name": "\x1b]0;owned\x07x", "shape": [1], "dtype": "float32"}]
    write(target, ("manifest.json", json.dumps(shape).encode()))
    result = CliRunner().invoke(main, ["bundle", "inspect", str(target)])
    assert result.exit_code == 0
    assert "owned" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
