"""``python -m edgeml``: the command line."""

from __future__ import annotations

from edgeml.cli import main

try:
    main(prog_name="edgeml")
finally:
    # Python remembers an interrupt that came while a string was executed, as dataclasses do, and would end
    # this process by SIGINT instead of with its exit code, whoever caught it. The next string clears it.
    exec("")  # noqa: S102
