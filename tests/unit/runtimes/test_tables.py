"""`edgeml bench` names each file so that it can be told from the others."""

import pytest
from edgeml_runtimes.benchmark import Job, Result
from edgeml_runtimes.tables import print_results, telling

from edgeml.manifest import Latency
from edgeml.measure import Measurement, Throughput


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


def _result(name: str, p50_ms: float, *, emulated: bool) -> Result:
    measurement = Measurement(
        *("litert", "2.1", name, 1, 5, 50),
        *(Latency(p50_ms, p50_ms, p50_ms), 1.0, 50.0, 1_000_000, "raspberry-pi-4", (Throughput(1, 10.0),)),
        emulated=emulated,
    )
    return Result(Job(artifact=name, runtime="litert"), measurement)


@pytest.mark.parametrize("emulated", [False, True])
def test_emulated_times_are_marked_and_none_is_called_the_quickest(capsys, emulated):
    print_results([_result(name, p50, emulated=emulated) for name, p50 in (("a", 1.0), ("b", 2.0))])
    said = capsys.readouterr().out
    assert ("quickest" in said) is not emulated
    assert ("emulated: correctness, memory and protocol only" in said) is emulated
