"""`edgeml server run` as a process."""

from __future__ import annotations

from tests.integration.server_process import ServerProcess


def test_the_first_start_prints_a_token_that_works_and_later_ones_do_not(server: ServerProcess) -> None:
    token = server.admin_token
    assert token
    assert any("edgeml repo init" in line for line in server.output)
    assert oct(server.data.stat().st_mode & 0o777) == "0o700"
    assert server.stop() == 0
    server.output.clear()
    server.start()
    assert not any("EDGEML_TOKEN" in line for line in server.output)
    assert server.call("GET", "/v1/server", token=token)[0] == 200
