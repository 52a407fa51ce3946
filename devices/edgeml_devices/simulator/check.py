"""Whether a server holds what it should after a run, asked as an operator asks: over its REST API."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgeml_devices.api_client import ApiClient, endpoint
from edgeml_devices.messages import ModelStatus, Result
from edgeml_devices.simulator.plan import Foreseen
from edgeml_devices.simulator.said import Bounds, Said, Statuses, Sums
from edgeml_devices.simulator.scenario import RUN_LABEL, Rollout

_COMPARED: Final = (
    *("state", "running", "variant", "target", "attempt"),
    *("result", "reason", "rollout", "ready"),
)
"""Fields of a model's status."""
_EXAMPLES: Final = 3
_PAGE: Final = 1000
_AROUND_S: Final = 86400.0
"""Asked about before and after a run: the clocks of server and simulator may differ."""
_COVERED: Final = ("received", "missing", "evicted", "damaged")


@dataclass(frozen=True, slots=True)
class Held:
    """What a server holds of one run."""

    devices: Mapping[str, Mapping[str, Any]]
    """By id."""
    rollouts: Mapping[str, Mapping[str, Any]]
    rates: Mapping[tuple[str, int], tuple[int, int]]
    """Calls and errors by model and release."""
    coverage: Mapping[str, int]
    """Windows, of all devices and days together."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is compared."""

    what: str
    foreseen: str
    """From the seed alone; empty where it does not say."""
    should: str
    holds: str
    is_good: bool
    examples: tuple[str, ...] = ()
    """Of what differs."""


def ask(client: ApiClient, run: str, rollouts: Sequence[str], began_at: float) -> Held:
    """Ask a server.

    Args:
        client: of a viewer.
        run: whose devices are meant.
        rollouts: ids.
        began_at: when the run began, Unix seconds.

    Raises:
        ServerError: it does not answer.
    """
    selector = f"{RUN_LABEL}={run}"
    span = {"since": str(began_at - _AROUND_S), "until": str(time.time() + _AROUND_S), "selector": selector}
    devices = client.pages("/v1/devices", "devices", {"selector": selector, "limit": _PAGE})
    rates = client.get("/v1/telemetry/rate", {**span, "by": "model,release"})["answers"]
    coverage: Counter[str] = Counter()
    for row in client.get("/v1/telemetry/coverage", span)["answers"]:
        coverage.update({name: row[name] for name in _COVERED})
    return Held(
        {one["id"]: one for one in devices},
        {id_: client.get(endpoint("rollouts", id_)) for id_ in rollouts},
        {(one["key"]["model"], one["key"]["release"]): (one["calls"], one["errors"]) for one in rates},
        dict(coverage),
    )


def compare(
    held: Held, said: Said, foreseen: Foreseen, rollouts: Mapping[str, Rollout], model: str
) -> list[Line]:
    """Compare what a server holds with what was said and foreseen.

    Args:
        held: what it holds.
        said: what the devices said.
        foreseen: what the seed says of as long a run.
        rollouts: those that were begun, by id.
        model: what telemetry is of.
    """
    return [
        _number("devices", str(foreseen.devices), said.joined, len(held.devices)),
        *_devices(held, said),
        *(
            line
            for (id_, rollout), results in zip(rollouts.items(), foreseen.results, strict=False)
            for line in _rollout(
                held.rollouts[id_],
                said.results.get(id_, {}),
                rollout,
                results,
                all_stay=foreseen.present == foreseen.devices,
            )
        ),
        *_telemetry(held, said, foreseen, model),
    ]


def _number(what: str, foreseen: str, should: Bounds, holds: int) -> Line:
    return Line(what, foreseen, str(should), str(holds), holds in should)


# --- devices


def _devices(held: Held, said: Said) -> Iterator[Line]:
    """Compare the states of each device, and how many run which release."""
    running, should = Counter[str](), dict[str, Bounds]()
    wrong: list[str] = []
    for id_, one in said.statuses.items():
        shown = held.devices.get(id_, {}).get("models", {})
        found = {model: of["status"] for model, of in shown.items() if of["status"] is not None}
        running.update(_running(model, of["running"]) for model, of in found.items())
        for name, bounds in _may_run(one).items():
            should[name] = should.get(name, Bounds()) + bounds
        if id_ not in held.devices:
            wrong.append(f"{one.name} is not there")
        elif not any(_same(found, statuses) for statuses in (one.answered, one.sent)):
            wrong.append(f"{one.name}: {_differs(found, one.answered)}")
    yield Line(
        "states of devices",
        "",
        f"{len(said.statuses)} as said",
        f"{len(said.statuses) - len(wrong)} as said",
        not wrong,
        tuple(wrong[:_EXAMPLES]),
    )
    for name in sorted({*should, *running}):
        yield _number(f"devices that run {name}", "", should.get(name, Bounds()), running[name])


def _running(model: str, release: int | None) -> str:
    return f"no {model}" if release is None else f"{model}/{release}"


def _may_run(one: Statuses) -> dict[str, Bounds]:
    before = {_running(model, status.running) for model, status in one.answered.items()}
    after = {_running(model, status.running) for model, status in one.sent.items()}
    return {name: Bounds(int(name in before and name in after), 1) for name in before | after}


def _same(found: Mapping[str, Mapping[str, Any]], statuses: Mapping[str, ModelStatus]) -> bool:
    return found.keys() == statuses.keys() and all(
        found[model][name] == getattr(status, name)
        for model, status in statuses.items()
        for name in _COMPARED
    )


def _differs(found: Mapping[str, Mapping[str, Any]], statuses: Mapping[str, ModelStatus]) -> str:
    for model in sorted({*found, *statuses}):
        if model not in found or model not in statuses:
            return f"{model} is {'not ' * (model not in found)}there"
        said = asdict(statuses[model])
        for name in _COMPARED:
            if found[model][name] != said[name]:
                return f"{name} of {model} is {found[model][name]}, it said {said[name]}"
    return "nothing"


# --- rollouts


def _rollout(
    document: Mapping[str, Any],
    said: Mapping[Result, Bounds],
    rollout: Rollout,
    foreseen: Mapping[str, int],
    *,
    all_stay: bool,
) -> Iterator[Line]:
    """Compare a rollout's state and outcomes; if it stops, or devices go, there are fewer than foreseen."""
    what, counts = f"{rollout.model}/{rollout.release}", document["counts"]
    state = document["state"]
    is_good = rollout.expect in {None, state}
    reasons = () if is_good or not document["reason"] else (f"{document['reason']}",)
    yield Line(f"rollout of {what}", rollout.expect or "", rollout.expect or state, state, is_good, reasons)
    committed = said.get(Result.SUCCESSFUL, Bounds())
    failed = sum((bounds for result, bounds in said.items() if result is not Result.SUCCESSFUL), Bounds())
    if state == "ABORTED":  # what ended behind the abort counts nowhere
        committed, failed = Bounds(0, committed.most), Bounds(0, failed.most)
    whole = all_stay and state == "FINISHED"
    good = foreseen.get(Result.SUCCESSFUL.value, 0)
    for name, number, should, holds in (
        ("devices that committed", good, committed, counts["succeeded"]),
        ("devices that failed", sum(foreseen.values()) - good, failed, counts["failed"] + counts["forgiven"]),
    ):
        yield _number(f"{name} {what}", f"{number}" if whole else f"up to {number}", should, holds)


# --- telemetry


def _telemetry(held: Held, said: Said, foreseen: Foreseen, model: str) -> Iterator[Line]:
    sums, staying = said.telemetry, said.of_those_staying
    more = " or more" * (foreseen.present < foreseen.devices)
    yield _number("windows", f"{foreseen.windows}{more}", sums.windows, held.coverage.get("received", 0))
    yield _number("windows that were lost", f"up to {foreseen.lost}{more}", sums.missing, _lost(held))
    of_model = {release: one for (name, release), one in held.rates.items() if name == model}
    for release in sorted({*sums.calls, *of_model}):
        calls, errors = of_model.get(release, (0, 0))
        name = f"of {model}/{release}" if release else "before any release"
        yield _number(f"inferences {name}", "", sums.calls.get(release, Bounds()), calls)
        yield _number(f"failed inferences {name}", "", sums.errors.get(release, Bounds()), errors)
    others = sorted({name for name, _ in held.rates if name != model})
    if others:
        yield Line("other models", "", "none", ", ".join(others), is_good=False)
    for what, number, told in (
        ("windows", foreseen.windows, staying.windows),
        ("inferences", foreseen.calls, _whole(staying, "calls")),
        ("failed inferences", foreseen.errors, _whole(staying, "errors")),
    ):
        if told != Bounds(number, number):
            yield Line(f"{what} of devices that stay", str(number), str(told), "", is_good=False)


def _lost(held: Held) -> int:
    return sum(number for name, number in held.coverage.items() if name != "received")


def _whole(sums: Sums, name: str) -> Bounds:
    by_release: Mapping[int, Bounds] = getattr(sums, name)
    return sum(by_release.values(), Bounds())
