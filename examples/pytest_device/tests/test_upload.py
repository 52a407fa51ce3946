"""Through a network that cuts, delays and is away: the count arrives."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from upload import send

from edgeml.testing.networks import Fault, http_answer
from edgeml.testing.plugin import MakeBadNetwork


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            counts.append(int(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

    counts: list[int] = []
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.counts = counts
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(cut_after_bytes=0)],
        [Fault(answer=http_answer("503 Busy")), Fault(answer=b"a hotel's log-in page")],
        [Fault(delay_s=0.2)],
    ],
    ids=["cut", "other answers", "slow"],
)
def test_a_count_arrives(bad_network: MakeBadNetwork, server: HTTPServer, faults: list[Fault]) -> None:
    network = bad_network(f"http://127.0.0.1:{server.server_port}")
    network.expect(faults)
    send(network.url, 12)
    assert server.counts[-1] == 12


def test_a_network_that_stays_away_is_an_error(bad_network: MakeBadNetwork, server: HTTPServer) -> None:
    network = bad_network(f"http://127.0.0.1:{server.server_port}")
    network.go_away()
    with pytest.raises(OSError, match="does not take the count"):
        send(network.url, 12)
    assert server.counts == []
