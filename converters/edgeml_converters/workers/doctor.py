"""What ``edgeml doctor`` says of the workers."""

from __future__ import annotations

from edgeml.doctor import Check
from edgeml_converters.workers.catalogue import WORKERS, status


def doctor_checks() -> tuple[Check, ...]:
    """Look at each worker; one that is only not installed is no fault."""
    return tuple(_check(name, worker.purpose) for name, worker in WORKERS.items())


def _check(name: str, purpose: str) -> Check:
    found = status(name)
    if found.usable:
        return Check("worker", name, "ok", f"{purpose} ({found.state}: {found.reason})")
    if found.state == "missing":
        return Check(
            "worker", name, "missing", f"{found.reason}; for {purpose}", f"edgeml workers install {name}"
        )
    remedy = (
        f"edgeml workers install {name}" if found.state == "outdated" else "correct the variable, or unset it"
    )
    return Check("worker", name, "broken", found.reason, remedy)
