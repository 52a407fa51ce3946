"""Selectors: how they are written, and that the database chooses as the program does."""

from __future__ import annotations

from contextlib import suppress

import pytest
from edgeml_devices.server.fleet import selectors
from edgeml_devices.server.tables import devices
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, insert, select

from edgeml.errors import UsageError

_WORDS = st.sampled_from(["a", "b", "ring", "x.y/z-1", "1"])
_LABELS = st.dictionaries(_WORDS, st.sampled_from(["", "a", "b", "1", "x_y"]), max_size=4)
_VALUES = st.sampled_from(["", "a", "b", "1", "x_y"])
_KEYS = _WORDS | st.sampled_from(["name", "id", "target"])
_TERMS = st.one_of(
    st.builds("{}={}".format, _KEYS, _VALUES),
    st.builds("{} != {}".format, _KEYS, _VALUES),
    st.builds("{} in ({})".format, _KEYS, st.lists(_VALUES, min_size=1, max_size=3).map(", ".join)),
    st.builds("{} notin ({})".format, _KEYS, st.lists(_VALUES, min_size=1, max_size=3).map(",".join)),
    _KEYS,
    st.builds("!{}".format, _KEYS),
)
_SELECTORS = st.lists(_TERMS, max_size=4).map(", ".join)
_DEVICES = st.tuples(_LABELS, st.sampled_from(["a", "b"]), st.sampled_from([None, "a", "pi4"]))


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", True),
        ("  ", True),
        ("site=berlin", True),
        ("site == berlin", True),
        ("site=rome", False),
        ("site!=rome,ring in (1, 2)", True),
        ("ring notin (1)", False),
        ("spare", False),
        ("!spare", True),
        ("spare!=yes", True),
        ("name=line-4,id=ff,target=pi4", True),
        ("target=pi5", False),
    ],
)
def test_what_it_chooses(text: str, chosen: bool) -> None:
    labels = {"site": "berlin", "ring": "1"}
    assert selectors.parse(text).matches(labels, "line-4", "ff", "pi4") is chosen


@pytest.mark.parametrize(
    "text",
    [
        *("=", "a b", "a=b c", "a in b", "a in (b", "!", "!a=b", "a=b,", ",", "a,,b", "a=(b)"),
        *("ä=b", "a=ö", "a\0", "a" * 99, "a in ()x", "a='b'", "a=b;DROP TABLE devices"),
        *(",".join(["a"] * 33), "a" * 4001),
    ],
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        selectors.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    with suppress(UsageError):
        selectors.parse(text).matches({}, "a", "b", None)


@pytest.fixture(scope="module")
def connection():
    engine = create_engine("sqlite://")
    devices.metadata.create_all(engine, [devices])
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@given(selector=_SELECTORS, fleet=st.lists(_DEVICES, max_size=5))
def test_the_database_chooses_as_the_program_does(connection: Connection, selector: str, fleet) -> None:
    chosen = selectors.parse(selector)
    with connection.begin() as transaction:
        for number, (labels, name, target) in enumerate(fleet):
            facts = None if target is None else {"target": {"name": target}}
            row = {
                "id": str(number),
                "name": f"{name}{number}",
                "token_sha256": str(number),
                "labels": labels,
            }
            connection.execute(insert(devices).values(row | {"facts": facts, "enrolled_at": 0.0}))
        found = set(connection.execute(select(devices.c.id).where(chosen.where())).scalars())
        transaction.rollback()
    expected = {
        str(number)
        for number, (labels, name, target) in enumerate(fleet)
        if chosen.matches(labels, f"{name}{number}", str(number), target)
    }
    assert found == expected
