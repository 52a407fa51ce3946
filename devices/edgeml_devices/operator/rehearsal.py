"""A release on emulated boards, before a rollout of it begins: installed and tested as on a device."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from edgeml import plugins
from edgeml.errors import EdgemlError, GateError, UsageError
from edgeml.processes import leash
from edgeml_devices.api_client import ApiClient
from edgeml_devices.operator.fetching import fetch_bundle

Mode = Literal["machine", "user"]
_SUFFIX: Final[dict[Mode, str]] = {"machine": "", "user": "?mode=user"}


def rehearse_release(client: ApiClient, planned: Mapping[str, Any], mode: Mode) -> dict[str, Any]:
    """Try the release of a plan on each kind of board that its devices are.

    Returns:
        ``emulated``: as of :func:`rehearse`; ``not_emulated``: the other targets.

    Raises:
        EdgemlError: the release could not be fetched, or nothing emulated.
    """
    boards, others = emulated(planned["targets"], mode)
    if not boards:
        return {"emulated": [], "not_emulated": others}
    with tempfile.TemporaryDirectory(prefix="edgeml-rehearsal-") as folder:
        bundle = fetch_bundle(client, planned["model"], planned["release"], Path(folder))
        return {"emulated": rehearse(bundle, boards, mode), "not_emulated": others}


def emulated(targets: Iterable[str], mode: Mode) -> tuple[list[str], list[str]]:
    """Divide targets into those that there is an emulated board of, and the others."""
    boards, others = [], []
    for target in targets:
        try:
            plugins.transport(f"emulator:{target}{_SUFFIX[mode]}")
        except UsageError:
            others.append(target)
        else:
            boards.append(target)
    return boards, others


def rehearse(bundle: Path, boards: Sequence[str], mode: Mode) -> list[dict[str, Any]]:
    """Deploy a bundle to one emulated board of each kind, one after another, by ``edgeml deploy``.

    Args:
        bundle: the release.
        boards: names of targets.
        mode: a whole machine, or programs in user mode, which is quicker and has this machine's kernel.

    Returns:
        What ``edgeml deploy --json`` says of each, and its ``board``.

    Raises:
        EdgemlError: the boards could not be emulated at all.
    """
    to = [word for board in boards for word in ("--to", f"emulator:{board}{_SUFFIX[mode]}")]
    command = [sys.executable, "-P", "-m", "edgeml", "deploy", str(bundle), *to, "--parallel", "1", "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        preexec_fn=leash(signal.SIGTERM),  # noqa: PLW1509 - as in leash
    ) as process:
        try:
            said, _ = process.communicate()
        except KeyboardInterrupt:
            process.wait()  # it heard of it, too, and stops its machines
            raise
        except BaseException:
            process.terminate()
            raise
    try:
        outcomes = json.loads(said)["devices"]
    except (ValueError, LookupError, TypeError) as error:
        raise EdgemlError(f"edgeml deploy ended with {process.returncode} and said no outcome") from error
    return [{"board": board} | outcome for board, outcome in zip(boards, outcomes, strict=True)]


def require_passed(outcomes: Sequence[dict[str, Any]]) -> None:
    """Hold a rollout back whose release does not work on a board.

    Raises:
        GateError: names the boards.
    """
    failed = [one["board"] for one in outcomes if one["result"] != "SUCCESSFUL"]
    if failed:
        raise GateError(f"the release was not seen to work on an emulated {', '.join(failed)}: see above")
