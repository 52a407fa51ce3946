"""Windows of devices that drift, or do not, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from edgeml_devices.server.telemetry.drift import (
    By,
    DriftFinding,
    DriftTally,
)
from edgeml_devices.server.telemetry.store import WindowRow

from edgeml.telemetry.fourier import fourier_sums
from edgeml.telemetry.reference import CONFIDENCE, Reference
from edgeml.telemetry.report import ModelWindow


def row(reference: Reference, device: str, seed: int, shift: float = 0.0, n: int = 200, **more) -> WindowRow:
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, 3)) + np.array([shift, 0, 0])
    values[:, 2] = np.round(values[:, 2])
    features = {one.name: one.count(values[:, place]) for place, one in enumerate(reference.features)}
    assert reference.confidence is not None
    features[CONFIDENCE] = reference.confidence.count(random.beta(8, 2, n))
    labels = random.choice(["cat", "dog", "eel"], n, p=[0.6, 0.3, 0.1])
    sums, count = fourier_sums(reference, values[:50])
    window = ModelWindow(
        "kws",
        more.pop("release", 1),
        calls=n,
        classes={name: int((labels == name).sum()) for name in ("cat", "dog", "eel")},
        features=features,
        rff_sum=sums,
        rff_count=count,
        reference=reference.digest,
    )
    return WindowRow(60.0 * seed, 60.0, device, more.pop("target", "host"), replace(window, **more))


def fleet(reference: Reference, devices: int, shifted: str = "", windows: int = 3) -> Iterator[WindowRow]:
    for device in range(devices):
        for window in range(windows):
            name = f"d{device}"
            shift = 0.5 if name == shifted else 0.0
            yield row(reference, name, 1000 * device + window, shift, target=f"t{device % 2}")


def fleet_drift(
    references: Mapping[str, Reference], rows: Iterable[WindowRow], by: By = "device"
) -> tuple[DriftFinding, ...]:
    """Judge windows at once."""
    tally = DriftTally(references, by)
    tally.add(rows)
    return tally.findings()


def normal_cdf(edges: tuple[float, ...]) -> np.ndarray:
    """Give the shares of a standard normal below edges."""
    from scipy.stats import norm

    return np.asarray(norm.cdf(edges))
