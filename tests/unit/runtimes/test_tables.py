"""`edgeml bench` names each file so that it can be told from the others."""

import pytest
from edgeml_runtimes.tables import telling


@pytest.mark.parametrize(
    ("path", "others", "shown"),
    [
        ("a/model.xml", ["a/model.xml", "b/model.xml"], "a/model.xml"),
        ("x/a/model.xml", ["x/a/model.xml", "x/b/model.xml"], "a/model.xml"),
        ("x/a/model.xml", ["x/a/model.xml", "x/b/other.xml"], "model.xml"),
        ("model.xml", ["model.xml", "b/model.xml"], "model.xml"),
        ("x/v/m.xml", ["x/v/m.xml", "y/v/m.xml", "y/m.xml"], "x/v/m.xml"),
        ("/x/m.xml", ["/x/m.xml", "/x/m.xml"], "m.xml"),
    ],
)
def test_the_shortest_end_of_a_path_that_tells(path, others, shown):
    assert telling(path, others) == shown
