"""The manifest as JSON: what is written is read back, what is unknown survives, what is wrong is named."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import BundleError
from edgeml.manifest import DataEntry, FileEntry, Latency, Manifest, Measured, Needs, Tolerance, Variant
from edgeml.manifest_json import dumps, from_json, loads, to_json
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.tensors import Quantization, TensorSpec
from edgeml.words import SampleDtype

HASH = "0" * 64
FULL = Manifest(
    name="kws",
    release=3,
    inputs=(TensorSpec("x", (None, 49, 10, 1), "float32"),),
    outputs=(TensorSpec("y", (1, 12), "int8", Quantization((0.5, 0.25), (3, -1), 1)),),
    variants=(
        Variant(
            name="litert-int8_static",
            runtime="litert",
            scheme="int8_static",
            files=(FileEntry("variants/litert-int8_static/model.tflite", 7, HASH),),
            targets=("raspberry-pi-4", "host"),
            options={"xnnpack": "true"},
            needs=Needs(memory_bytes=1000, cpu_features=("neon",)),
            measured=Measured(accuracy=0.928, sqnr_db=math.inf, latency_ms=Latency(1.0, 2.0, 3.0)),
            tolerance=Tolerance(0.1),
        ),
    ),
    files=(FileEntry("labels.txt", 1, HASH),),
    preprocess=Preprocess(color="bgr", resize=(256, 256), crop=(224, 224), mean=(1.0, 2.0)),
    postprocess=Postprocess(softmax=True, top=5),
    data=(DataEntry("calibration", 100, HASH),),
    labels="labels.txt",
    provenance={"source": {"sha256": HASH}},
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
numbers = st.floats(allow_nan=False)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
entries = st.builds(FileEntry, st.text(), st.integers(0), hashes)
specs = st.builds(
    TensorSpec,
    st.text(),
    st.lists(st.none() | st.integers(0), max_size=4).map(tuple),
    st.sampled_from(["float32", "int8"]),
    st.none() | st.builds(Quantization, st.lists(numbers).map(tuple), st.lists(st.integers()).map(tuple)),
)
maybe = st.none() | numbers
measured = st.builds(
    Measured,
    maybe,
    maybe,
    st.none() | st.text(),
    maybe,
    st.none() | st.builds(Latency, numbers, numbers, numbers),
)
variants = st.builds(
    Variant,
    name=st.text(),
    runtime=st.sampled_from(["litert", "openvino"]),
    scheme=st.sampled_from(["float32", "int8_static"]),
    files=st.lists(entries, max_size=2).map(tuple),
    targets=st.lists(st.text(), max_size=2).map(tuple),
    options=st.dictionaries(st.text(), st.text(), max_size=2),
    measured=measured,
    golden=st.none() | entries,
    inputs=st.lists(specs, max_size=2).map(tuple),
)
manifests = st.builds(
    Manifest,
    name=st.text(),
    release=st.integers(),
    inputs=st.lists(specs, max_size=2).map(tuple),
    outputs=st.lists(specs, max_size=2).map(tuple),
    variants=st.lists(variants, max_size=2).map(tuple),
    files=st.lists(entries, max_size=2).map(tuple),
    health=st.dictionaries(st.text(), values, max_size=2),
)


@given(manifests)
def test_what_is_written_is_read_back(manifest: Manifest) -> None:
    assert loads(dumps(manifest)) == manifest


def test_a_full_manifest_is_read_back_and_leaves_defaults_out() -> None:
    assert loads(dumps(FULL)) == FULL
    written = to_json(FULL)
    assert list(written)[:3] == ["schema", "name", "release"]
    assert "health" not in written
    assert written["variants"][0]["measured"]["sqnr_db"] == "inf"


def _objects(data: Any) -> list[dict[str, Any]]:
    """Every object that stands for a dataclass of the contract."""
    found = [data, *data["variants"], *data["files"], *data["data"], *data["inputs"], *data["outputs"]]
    found += [data["preprocess"], data["postprocess"], data["outputs"][0]["quantization"]]
    variant = data["variants"][0]
    measured_at = variant["measured"]
    return [
        *found,
        *variant["files"],
        variant["needs"],
        measured_at,
        measured_at["latency_ms"],
        variant["tolerance"],
    ]


KNOWN = (
    {name for place in _objects(to_json(FULL)) for name in place}
    | {
        field
        for kind in (Manifest, Variant, Measured, Needs, Tolerance, FileEntry, DataEntry, TensorSpec)
        for field in kind.__dataclass_fields__
    }
    | {
        *Preprocess.__dataclass_fields__,
        *Postprocess.__dataclass_fields__,
        *Quantization.__dataclass_fields__,
    }
)


@given(st.data())
def test_unknown_fields_of_every_object_survive_reading_and_writing(data: st.DataObject) -> None:
    written = json.loads(dumps(FULL))
    names = (st.text() | st.sampled_from(["/a", "~", "~1", "a/b", ""])).filter(lambda name: name not in KNOWN)
    for place in _objects(written):
        place.update(data.draw(st.dictionaries(names, values, max_size=1)))
    assert to_json(from_json(json.loads(json.dumps(written)))) == written


def test_an_unknown_field_stands_in_extra() -> None:
    written = to_json(FULL) | {"colour": "red"}
    written["inputs"][0]["meaning"] = "mfcc"
    assert from_json(written).extra == {"colour": "red", "/inputs/0/meaning": "mfcc"}


@pytest.mark.parametrize(
    ("pointer", "value", "said"),
    [
        (("release",), "3", "release: must be a whole number, got '3'"),
        (("release",), True, "release: must be a whole number, got True"),
        (("inputs", 0, "shape"), "x", "inputs[0].shape: must be a list, got 'x'"),
        (("inputs", 0, "shape", 1), 1.5, "inputs[0].shape[1]: must be a whole number, got 1.5"),
        (("variants", 0, "files", 0, "sha256"), 1, "variants[0].files[0].sha256: must be a text, got 1"),
        (("variants", 0, "options"), {"a": 1}, "variants[0].options.a: must be a text, got 1"),
        (
            ("variants", 0, "measured", "accuracy"),
            "x",
            "variants[0].measured.accuracy: must be a number, got 'x'",
        ),
        (("preprocess", "color"), "cmyk", "preprocess.color: must be one of rgb, bgr, gray, got 'cmyk'"),
        (
            ("preprocess", "dtype"),
            "float33",
            f"preprocess.dtype: must be one of {', '.join(get_args(SampleDtype))}, got 'float33'",
        ),
        (("preprocess", "resize"), [1], "preprocess.resize: must be a list of 2, got [1]"),
        (("postprocess", "softmax"), 1, "postprocess.softmax: must be true or false, got 1"),
        (("variants",), None, "variants: must be a list, got None"),
    ],
)
def test_a_field_of_a_wrong_type_is_named_by_its_path(
    pointer: tuple[str | int, ...], value: object, said: str
) -> None:
    written = json.loads(dumps(FULL))
    place: Any = written
    for part in pointer[:-1]:
        place = place[part]
    place[pointer[-1]] = value
    with pytest.raises(BundleError) as caught:
        from_json(written)
    assert str(caught.value) == f"manifest.json: {said}"


def test_a_missing_field_is_named_by_its_path() -> None:
    written = json.loads(dumps(FULL))
    del written["variants"][0]["files"][0]["size_bytes"]
    with pytest.raises(BundleError, match=r"variants\[0\]\.files\[0\]\.size_bytes: missing"):
        from_json(written)
    with pytest.raises(BundleError, match="schema: missing"):
        from_json({})


def test_a_newer_schema_asks_for_an_upgrade() -> None:
    with pytest.raises(BundleError, match="has schema 2, this edgeml reads up to 1: upgrade edgeml"):
        from_json({"schema": 2})


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"[" * 200_000, b'{"schema": 1, "schema": 1}', b'{"schema": NaN}', b"[1]", b"1"],
)
def test_what_is_no_manifest_is_a_bundle_error(text: bytes) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        loads(text)


@given(st.recursive(values, lambda inner: st.dictionaries(st.sampled_from(sorted(KNOWN)), inner)))
def test_any_json_is_read_or_refused_as_a_bundle_error(data: object) -> None:
    with suppress(BundleError):  # nothing else may come out
        assert isinstance(from_json(data), Manifest)
