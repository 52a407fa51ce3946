"""Templates, how numbers and times are written, and the headers that each page is sent with."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

import edgeml
from edgeml_devices.messages import Result, State
from edgeml_devices.server.rollouts.engine import GateState
from edgeml_devices.server.rollouts.policy import DeviceState, RolloutState

STYLE: Final = (files("edgeml_devices.server.pages") / "style.css").read_text("utf-8")
HEADERS: Final[Mapping[str, str]] = {
    # no script at all, nothing from elsewhere, no styles in the page: what a device says cannot act
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send forms with Origin: null
    "Cache-Control": "no-store",
}
_PAGES: Final = (
    ("overview", "/console", "Overview"),
    ("devices", "/console/devices", "Devices"),
    ("releases", "/console/releases", "Releases"),
    ("rollouts", "/console/rollouts", "Rollouts"),
    ("telemetry", "/console/telemetry", "Telemetry"),
    ("audit", "/console/audit", "Audit log"),
)
"""Name, address and text of the navigation."""
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400
_LONGEST_YEARS_S: Final = 100 * 366 * _DAY_S
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_TONES: Final[Mapping[str, str]] = {
    State.IDLE: "quiet",
    State.COMMITTED: "good",
    State.FAILED: "bad",
    State.QUARANTINED: "bad",
    State.ROLLING_BACK: "bad",
    Result.SUCCESSFUL: "good",
    Result.FAILED_NO_STATE_CHANGE: "bad",
    Result.FAILED_ROLLBACK_COMPLETE: "bad",
    Result.FAILED_UNABLE_TO_ROLLBACK: "bad",
    DeviceState.WAITING: "quiet",
    DeviceState.HELD: "held",
    DeviceState.ASSIGNED: "busy",
    DeviceState.SUCCEEDED: "good",
    DeviceState.SKIPPED: "skipped",
    DeviceState.CANCELLED: "skipped",
    RolloutState.RUNNING: "busy",
    RolloutState.PAUSED: "held",
    RolloutState.WAITING_FOR_APPROVAL: "held",
    RolloutState.ABORTING: "bad",
    RolloutState.ABORTED: "bad",
    RolloutState.DENIED: "bad",
    RolloutState.FINISHED: "good",
    RolloutState.READY: "quiet",
    GateState.PASSED: "good",
    GateState.MISSING: "held",
    "online": "good",
    "silent": "bad",
    "never seen": "held",
    "retired": "skipped",
    "withdrawn": "bad",
    "passed": "good",
    "failed": "bad",
    "ready": "good",
    "verified": "good",
    "broken": "bad",
    "valid": "good",
    "soon": "held",
    "expired": "bad",
    "firing": "bad",
    "pending": "held",
    "drifted": "bad",
    "as expected": "good",
}


def page(template: str, status: int = 200, **context: Any) -> Response:
    """Render a page.

    Args:
        template: its file.
        status: of HTTP.
        **context: ``now`` and ``actor`` (``None``: nobody is signed in) at least.
    """
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(context), status)


# --- how values are written


def _time(seconds: float) -> datetime | None:
    """A device's clock may say anything."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _utc(seconds: float) -> tuple[str, ...]:
    """Write a time in parts that a narrow column may break between."""
    time = _time(seconds)
    return (f"{time:%Y-%m-%d}", f"{time:%H:%M:%S} UTC") if time else ("no time",)


def _iso(seconds: float) -> str:
    time = _time(seconds)
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else ""


def _span(seconds: float) -> str:
    """Write a duration: 40 s, 12 min, 5 h, 3 d."""
    if not math.isfinite(seconds) or abs(seconds) > _LONGEST_YEARS_S:
        return "ages"
    whole = max(0, round(seconds))
    if whole < 2 * _MINUTE_S:
        return f"{whole} s"
    if whole < 2 * _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < 2 * _DAY_S:
        return f"{whole // _HOUR_S} h"
    return f"{whole // _DAY_S} d"


def _ago(seconds: float, now: float) -> str:
    return f"{_span(now - seconds)} ago" if seconds <= now else f"in {_span(seconds - now)}"


def _bytes(size: object) -> str:
    if not isinstance(size, int | float) or isinstance(size, bool) or not 0 <= size < math.inf:
        return "unknown"
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - SI
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if unit else f"{size:.0f} B"


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    """Write a share so that 0 % is none, and 100 % all."""
    if value == round(value):
        return f"{value:.0f} %"
    return f"{min(max(value, 0.1), 99.9):.1f} %"


def _rate(value: float) -> str:
    """Write a share of calls in per cent, with three digits: a rare error is not none."""
    return f"{100 * value:.3g} %"


def _ms(seconds: float) -> str:
    """Write seconds in milliseconds, with three digits."""
    return f"{1000 * seconds:.3g}"


def _quantity(value: float, name: str) -> str:
    """Write a machine's quantity in the unit that its name says."""
    if name.endswith("bytes"):
        return _bytes(value)
    if name in {"throttled", "under_voltage"} or name.endswith("utilization"):
        return _rate(value)
    for ending, unit in (("celsius", "°C"), ("hertz", "Hz"), ("watts", "W"), ("_s", "s")):
        if name.endswith(ending):
            return f"{value:.3g} {unit}"
    return f"{value:.3g}"


def _measure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _value(value: object) -> str:
    """Write what a device said of itself, whatever it is."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _segment(text: object) -> str:
    """Write text as one part of a path."""
    return quote(str(text), safe="")


def _tone(state: str) -> str:
    return _TONES.get(state, "busy")


def _shares(counts: Mapping[str, int], total: int) -> list[tuple[str, int, float, float]]:
    """Give (state, count, begin, width) in per mille of a bar."""
    found: list[tuple[str, int, float, float]] = []
    begin = 0.0
    for state, count in counts.items():
        width = 1000 * count / total if total else 0.0
        found.append((state, count, round(begin, 2), round(width, 2)))
        begin += width
    return found


_FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "utc": _utc,
    "iso": _iso,
    "span": _span,
    "ago": _ago,
    "bytes": _bytes,
    "count": _count,
    "percent": _percent,
    "measure": _measure,
    "ms": _ms,
    "quantity": _quantity,
    "rate": _rate,
    "value": _value,
    "segment": _segment,
    "tone": _tone,
    "shares": _shares,
}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("edgeml_devices.server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= _FILTERS
    environment.globals |= {
        "version": edgeml.__version__,
        "pages": _PAGES,
        "style_version": hashlib.sha256(STYLE.encode()).hexdigest()[:8],
        "here": "",
        "refresh_s": None,
    }
    return environment


_ENVIRONMENT: Final = _environment()
