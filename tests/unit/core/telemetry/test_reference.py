"""References in a bundle: read back as written, unknown fields kept, what cannot be is named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import BundleError
from edgeml.manifest import Manifest
from edgeml.manifest_json import dumps, loads
from edgeml.telemetry.reference import (
    FeatureReference,
    JointReference,
    Null,
    Reference,
    reference_from_json,
    reference_to_json,
    with_digest,
)

NULL = Null(100, w1=(1.0, 2.0, 3.0, 4.0, 5.0))
FULL = with_digest(
    Reference(
        count=8,
        features=(FeatureReference("x[0]", (0.0, 1.5), (3, 4, 1), mean=0.5, std=1.0, nulls=(NULL,)),),
        classes={"cat": 5, "other": 3},
        confidence=FeatureReference("output:confidence", (0.5,), (2, 6), mean=0.7, std=0.1, discrete=True),
        joint=JointReference(
            7, 1, 1.25, ("x[0]",), (0.5, 0.1), (1.0, 2.0), (1.5, 0.5), 8, nulls=(1.0, 2.0, 3.0, 4.0, 5.0)
        ),
    )
)


def test_a_reference_is_read_back_from_a_manifest_as_it_was_written() -> None:
    manifest = Manifest("kws", 1, (), (), (), (), drift=reference_to_json(FULL))
    assert reference_from_json(loads(dumps(manifest)).drift) == FULL


def test_a_bundle_without_reference_has_none() -> None:
    assert reference_from_json(loads(dumps(Manifest("kws", 1, (), (), (), ()))).drift) is None


def test_unknown_fields_survive_reading_and_writing() -> None:
    plain = json.loads(json.dumps(reference_to_json(FULL)))
    plain["since"] = 2027
    plain["features"][0]["unit"] = "lux"
    plain["joint"]["kernel"] = "gauss"
    reference = reference_from_json(plain)
    assert reference is not None
    assert json.loads(json.dumps(reference_to_json(reference))) == plain


def test_the_digest_names_the_content() -> None:
    assert FULL.digest == with_digest(FULL).digest
    assert with_digest(Reference(count=9, features=FULL.features)).digest != FULL.digest


WRONG: dict[str, Any] = {
    "digest": "",
    "features": [{"name": "x", "edges": [1.0, 1.0], "counts": [1, 1, 1]}],
    "confidence": {"name": "c", "edges": [1.0], "counts": [1]},
    "classes": {"cat": -1},
    "joint": reference_to_json(FULL)["joint"] | {"mean": [1.0]},
    "class_nulls": [{"size": 3, "chi2": [1.0, 2.0]}],
    "count": "many",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(BundleError, match=r"drift: .*make the bundle again"):
        reference_from_json(reference_to_json(FULL) | {name: WRONG[name]})


@pytest.mark.parametrize(
    "feature",
    [
        {"name": "x", "edges": [float("inf")], "counts": [1, 1]},
        {"name": "x", "edges": [1.0], "counts": [0, 0]},
        {"name": "x", "edges": [1.0], "counts": [2, -1]},
        {"name": "x", "edges": [1.0], "counts": [2, 1], "std": -1.0},
        {"name": "x", "edges": list(range(300)), "counts": [1] * 301},
        {"name": "x", "edges": [1.0], "counts": [2, 1], "nulls": [{"size": 5}, {"size": 5}]},
    ],
)
def test_a_feature_that_cannot_be_is_refused(feature: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="'x'"):
        reference_from_json(reference_to_json(FULL) | {"features": [feature], "joint": None})


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20, unique=True).map(sorted),
    st.lists(st.floats(allow_infinity=True, allow_nan=True), max_size=50),
)
def test_values_are_counted_as_numpy_counts_them(edges: list[float], values: list[float]) -> None:
    feature = FeatureReference("x", tuple(edges), (1,) * (len(edges) + 1))
    places = np.searchsorted(edges, values, side="right")
    assert feature.count(values) == tuple(np.bincount(places, minlength=len(edges) + 1))


def test_a_value_at_an_edge_counts_above_it_and_no_number_counts_last() -> None:
    assert FULL.features[0].count([0.0, -0.1, 1.5, float("nan"), float("inf")]) == (1, 1, 3)
