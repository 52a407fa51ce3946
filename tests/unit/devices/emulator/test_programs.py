"""Programs of the host end with who started them."""

from __future__ import annotations

import subprocess
import sys

from tests.waiting import gone

OWNER = """
from edgeml_devices.emulator import programs
programs.run(["sh", "-c", "echo $$; exec sleep 300"], "waiting", on_line=lambda line: print(line, flush=True))
"""


def test_a_program_ends_where_its_owner_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        program = int(owner.stdout.readline())
        owner.kill()
    assert gone(program)
