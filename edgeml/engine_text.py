"""One line out of what an engine or framework says when it fails."""

from __future__ import annotations

from typing import Final

_SUMMARY: Final = "Summary:\n"
"""What stands before the last part of OpenVINO's conversion report."""
_PLACES: Final = ("Exception from ", "Check '", "FrontEnd API failed")
"""How lines begin that say where in the engine's source it failed, which helps nobody here."""


def engine_text(error: BaseException, limit: int = 300) -> str:
    """Give an engine's message as one line: its lines joined, without those that name its source.

    Of an OpenVINO conversion report it is the operators that could not be converted, and why.

    Args:
        error: what the engine raised; where it has no message, its type stands for it.
        limit: characters; what is longer ends in ``…``.
    """
    report, found, summary = str(error).partition(_SUMMARY)
    text = _of_report(report, summary) if found else " ".join(_telling(str(error)))
    text = text or " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _of_report(report: str, summary: str) -> str:
    """Read an OpenVINO report: the operators in its summary, and why the first one failed if it says so."""
    named = [line.strip().removeprefix("--").strip() for line in summary.splitlines() if line.strip()]
    _, failed, log = report.partition(" with a message:\n")
    why = _telling(log) if failed else []
    return "; ".join(named) + (f" ({why[-1]})" if why else "")


def _telling(message: str) -> list[str]:
    lines = (line.strip() for line in message.splitlines())
    return [line for line in lines if line and not line.startswith(_PLACES)]
