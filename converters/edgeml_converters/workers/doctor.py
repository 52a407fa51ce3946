"""What ``edgeml doctor`` says of the workers."""

from __future__ import annotations

from edgeml.doctor import Check
from edgeml_converters.workers.catalogue import WORKERS, status, workers_dir, workers_dir_origin


def doctor_checks() -> tuple[Check, ...]:
    """Say where workers are looked for, and look at each; one that is only not installed is no fault."""
    place = Check("worker", "workers_dir", "ok", f"{workers_dir()} ({workers_dir_origin()})")
    return (place, *(_check(name, worker.purpose) for name, worker in WORKERS.items()))


def _check(name: str, purpose: str) -> Check:
    found = status(name)
    if found.usable:
        return Check("worker", name, "ok", f"{purpose} ({found.state}: {found.reason})")
    if found.state == "missing":
        return Check("worker", name, "missing", f"for {purpose}", f"edgeml workers install {name}")
    remedy = (
        f"edgeml workers install {name}" if found.state == "outdated" else "correct the variable, or unset it"
    )
    return Check("worker", name, "broken", found.reason, remedy)
