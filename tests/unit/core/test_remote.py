"""edgeml on another machine: what is said on the way there."""

from __future__ import annotations

import pytest

from edgeml.errors import TransportError
from edgeml.remote import remote_edgeml


def test_the_machine_is_named_before_it_is_waited_for() -> None:
    said: list[str] = []
    url = "ssh://nobody@127.0.0.1:1"
    with pytest.raises(TransportError), remote_edgeml(url, said.append):
        pass
    assert said == [f"connecting to {url}"]
