"""Damaged, foreign and hostile model files: one clear message, before any engine sees them."""

from __future__ import annotations

import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import ModelFileError, UnsafeFileError
from edgeml.formats import check_file, identify
from edgeml.words import Format


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


OPSETS = field(8, b"\x10\x11")


def onnx(graph: bytes = b"") -> bytes:
    return b"\x08\x08" + field(2, b"test") + field(7, graph) + OPSETS


def external(location: str, length: int = 4) -> bytes:
    """An ONNX model with one initializer that lies in another file."""
    entries = {"location": location, "offset": "0", "length": str(length)}
    parts = (field(13, field(1, key.encode()) + field(2, value.encode())) for key, value in entries.items())
    return onnx(field(5, field(8, b"w") + b"".join(parts)))


REAL: dict[str, tuple[str, Format]] = {
    "onnx": ("kws/kws_float.onnx", "onnx"),
    "tflite": ("kws/kws_float.tflite", "tflite"),
    "tflite without signature": ("ic/pretrainedResnet.tflite", "tflite"),
    "h5": ("ic/pretrainedResnet.h5", "keras"),
    "savedmodel": ("kws/kws_ref_model", "savedmodel"),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_a_real_model_is_known_by_its_content(data_dir: Path, tmp_path: Path, name: str) -> None:
    place, wanted = REAL[name]
    link = tmp_path / "model.other"
    link.symlink_to(data_dir / place)
    assert identify(link) == wanted
    check_file(data_dir / place, wanted)


@pytest.mark.data
@pytest.mark.parametrize("name", ["onnx", "tflite", "tflite without signature", "h5"])
def test_a_real_model_cut_anywhere_is_refused(data_dir: Path, tmp_path: Path, name: str) -> None:
    place, wanted = REAL[name]
    content = (data_dir / place).read_bytes()
    path = tmp_path / "cut"
    for part in (0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(ModelFileError, match=r"truncated: \d+ of at least \d+ bytes"):
            check_file(path, wanted)
    path.write_bytes(content[:-1])
    with pytest.raises(ModelFileError, match="truncated"):
        check_file(path, wanted)


@pytest.mark.data
def test_a_file_for_another_runtime_says_what_it_is(data_dir: Path) -> None:
    with pytest.raises(
        ModelFileError, match="this is a TFLite file, runtime onnxruntime needs an ONNX model"
    ):
        check_file(data_dir / "kws/kws_float.tflite", "onnx")
    with pytest.raises(ModelFileError, match="this is an ONNX model, runtime litert needs a TFLite file"):
        check_file(data_dir / "kws/kws_float.onnx", "tflite")


@pytest.mark.data
def test_part_of_a_savedmodel_asks_for_its_folder(data_dir: Path) -> None:
    with pytest.raises(ModelFileError, match="give its folder"):
        identify(data_dir / "kws/kws_ref_model/saved_model.pb")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "run git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page, not a model"),
        (b"\x80\x02}q\x00.", "loading it would run code"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x93NUMPY\x01", "a numpy array"),
        (b"\x00\x00\x00\x00ORTM", "an .ort file"),
        (b"just some text", "not a model in a known format"),
        (b"\x08", "truncated|known format"),
        (bytes(100), "not a model in a known format"),
        (b"<xml/>", r"not an OpenVINO network \(its root is <xml>\)"),
    ],
)
def test_what_is_no_model_says_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=said):
        identify(path)


def test_a_missing_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        identify(tmp_path / "nothing")
    with pytest.raises(ModelFileError, match=r"a folder without saved_model\.pb"):
        identify(tmp_path)


# --- ONNX


def test_a_protobuf_that_claims_two_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08" + varint(7 << 3 | 2) + varint(2**31) + b"x" * 100)
    with pytest.raises(ModelFileError, match="a field claims 2147483648 bytes, the file has 108"):
        identify(path)


def test_a_claim_of_two_gigabytes_deep_inside(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx(field(5, varint(9 << 3 | 2) + varint(2**31 - 1))))
    with pytest.raises(ModelFileError, match="damaged"):
        check_file(path, "onnx")


def test_an_endless_number(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08" + b"\xff" * 100)
    with pytest.raises(ModelFileError, match="damaged at byte"):
        identify(path)


def test_graphs_nested_without_end(tmp_path: Path) -> None:
    graph = b""
    for _ in range(200):
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx(graph))
    with pytest.raises(UnsafeFileError, match="nested deeper"):
        check_file(path, "onnx")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret"])
def test_external_data_that_leave_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(4))
    (tmp_path / "model" / "a").mkdir(parents=True)
    path = tmp_path / "model" / "model.onnx"
    path.write_bytes(external(location))
    with pytest.raises(UnsafeFileError, match="outside its folder"):
        check_file(path, "onnx")


def test_external_data_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").symlink_to(tmp_path / "secret")
    path = tmp_path / "model" / "model.onnx"
    path.write_bytes(external("weights"))
    with pytest.raises(UnsafeFileError, match="outside its folder"):
        check_file(path, "onnx")


def test_external_data_that_are_missing_or_short(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(external("model.onnx.data", length=100))
    with pytest.raises(ModelFileError, match=r"model\.onnx\.data is missing beside the model"):
        check_file(path, "onnx")
    (tmp_path / "model.onnx.data").write_bytes(bytes(60))
    with pytest.raises(ModelFileError, match="truncated: 60 of at least 100 bytes"):
        check_file(path, "onnx")
    (tmp_path / "model.onnx.data").write_bytes(bytes(100))
    check_file(path, "onnx")


# --- OpenVINO

NETWORK = (
    '<?xml version="1.0"?><net name="m" version="11"><layers><layer type="Const"><data offset="8" size="32"/>'
)
WHOLE = NETWORK + "</layer></layers></net>"


def test_xml_without_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text(WHOLE)
    with pytest.raises(ModelFileError, match=r"model\.bin is missing beside the model"):
        check_file(path, "openvino")
    (tmp_path / "model.bin").write_bytes(bytes(39))
    with pytest.raises(ModelFileError, match="truncated: 39 of at least 40 bytes"):
        check_file(path, "openvino")
    (tmp_path / "model.bin").write_bytes(bytes(40))
    check_file(path, "openvino")


def test_xml_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text(NETWORK)
    with pytest.raises(ModelFileError, match="truncated"):
        check_file(path, "openvino")


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE n [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;&a;">]><net>&c;</net>',
        '<!DOCTYPE n [<!ENTITY a SYSTEM "file:///etc/passwd">]><net>&a;</net>',
        '<!DOCTYPE net SYSTEM "http://127.0.0.1/x.dtd"><net/>',
    ],
)
def test_xml_with_entities(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.xml"
    path.write_text(text)
    with pytest.raises(UnsafeFileError, match="DOCTYPE or entities"):
        check_file(path, "openvino")


# --- zips: Keras and pt2


def keras_zip(
    path: Path, *more: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in [("config.json", b"{}"), ("model.weights.h5", b"weights" * 100), *more]:
            archive.writestr(name, content)
    return path


def test_zips_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    assert identify(keras_zip(tmp_path / "model.zip")) == "keras"
    for names, wanted in ((["m/archive_format", "m/models/model.json"], "pt2"),):
        with zipfile.ZipFile(tmp_path / "a", "w") as archive:
            for name in names:
                archive.writestr(name, b"pt2")
        assert identify(tmp_path / "a") == wanted


@pytest.mark.parametrize(
    ("name", "said"),
    [("m/data.pkl", "a PyTorch checkpoint"), ("manifest.json", "an edgeml bundle"), ("x", "neither a Keras")],
)
def test_other_zips_say_what_they_are(tmp_path: Path, name: str, said: str) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr(name, b"{}")
    with pytest.raises(ModelFileError, match=said):
        identify(tmp_path / "a")


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "said"),
    [("../evil", "leaves its folder"), ("/evil", "absolute path"), (link("evil"), "a link")],
)
def test_a_zip_with_an_unsafe_member(tmp_path: Path, member: str | zipfile.ZipInfo, said: str) -> None:
    path = keras_zip(tmp_path / "model.keras", (member, b"/etc/passwd"))
    with pytest.raises(UnsafeFileError, match=said):
        identify(path)


def test_a_zip_bomb(tmp_path: Path) -> None:
    path = keras_zip(tmp_path / "model.keras", ("zeros", bytes(64 * 1024**2)), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeFileError, match="zip bomb"):
        identify(path)


def test_a_zip_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = keras_zip(tmp_path / "model.keras").read_bytes()
    path = tmp_path / "cut.keras"
    for size in range(5, len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(ModelFileError, match="truncated"):
            identify(path)


def test_a_zip_with_a_changed_byte(tmp_path: Path) -> None:
    path = keras_zip(tmp_path / "model.keras")
    path.write_bytes(path.read_bytes().replace(b"weightsweights", b"weightsweightS", 1))
    with pytest.raises(ModelFileError, match="does not have its checksum"):
        check_file(path, "keras")


# --- anything at all

STARTS = [
    b"",
    b"\x08\x08",
    onnx(),
    b"\x1c\0\0\0TFL3",
    b"\x89HDF\r\n\x1a\n\0",
    b"PK\x03\x04",
    b"<net",
    WHOLE.encode(),
]


@given(st.sampled_from(STARTS), st.binary(max_size=200))
def test_no_bytes_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(start + rest)
    try:
        found = identify(path)
        check_file(path, found)
    except ModelFileError as error:
        said = str(error)
    else:
        said = str(path)
    assert str(path) in said or "model.bin" in said


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_no_offset_in_a_flatbuffer_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, offset: int, place: int
) -> None:
    content = bytearray(b"\x1c\0\0\0TFL3" + bytes(range(100)))
    struct.pack_into("<I", content, place, offset)
    content[4:8] = b"TFL3"
    path = tmp_path_factory.getbasetemp() / "flat"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"truncated|damaged"):
        check_file(path, "tflite")


@pytest.mark.data
@pytest.mark.parametrize("name", ["onnx", "tflite", "h5"])
@pytest.mark.parametrize("seed", range(40))
def test_no_changed_bytes_of_a_real_model_raise_anything_else(
    data_dir: Path, tmp_path: Path, name: str, seed: int
) -> None:
    check_changed((data_dir / REAL[name][0]).read_bytes(), tmp_path / "model", seed)


@pytest.mark.parametrize("seed", range(200))
def test_no_changed_bytes_of_a_zip_raise_anything_else(tmp_path: Path, seed: int) -> None:
    check_changed(keras_zip(tmp_path / "model.keras").read_bytes(), tmp_path / "model", seed)


def check_changed(content: bytes, path: Path, seed: int) -> None:
    """Change up to twenty bytes; the file is taken, or refused in our words."""
    source = random.Random(seed)  # noqa: S311 - repeatable, not secret
    changed = bytearray(content)
    for _ in range(source.choice([1, 3, 20])):
        reach = len(content) if source.random() < 0.5 else min(len(content), 300)
        changed[source.randrange(reach)] = source.randrange(256)
    path.write_bytes(changed)
    said = str(path)
    try:
        check_file(path, identify(path))
    except ModelFileError as error:
        said = str(error)
    assert str(path) in said
