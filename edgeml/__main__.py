"""``python -m edgeml``: the command line."""

from __future__ import annotations

from edgeml.cli import main

main(prog_name="edgeml")
