"""One piece of work on many devices at once, each on its own: what fails on one does not touch the others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from edgeml.errors import EdgemlError, TransportError
from edgeml_devices.install.words import Outcome, Standing, StepError, Watch
from edgeml_devices.messages import Reason, Result

_LOOK_UP_S: Final = 0.2
Work = Callable[[str, Watch, threading.Event], Outcome]
"""Does it for one URL; tells how far it is; ends early, on sound ground, once the event is set."""


@dataclass(frozen=True, slots=True)
class Together:
    """What came of it."""

    outcomes: tuple[Outcome, ...]
    """In the order of the URLs."""
    interruption: BaseException | None = None
    """What stopped it: Ctrl-C, or the signal to end."""


def on_each(
    urls: Sequence[str], work: Work, *, parallel: int, watch: Callable[[str, Standing], None]
) -> Together:
    """Work on every URL, on ``parallel`` of them at a time.

    At the first interruption the others are asked to end; the second one is raised at once.
    """
    stop = threading.Event()
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    for url in urls:
        todo.put(url)
    found: dict[str, Outcome] = {}

    def serve() -> None:
        with suppress(queue.Empty):
            while True:
                url = todo.get_nowait()
                found[url] = _on_one(url, work, stop, partial(watch, url))
                ended.put(None)

    # daemons: a second interruption must not wait for a transfer to end
    threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(parallel, len(urls)))]
    interruption: BaseException | None = None
    while len(found) < len(urls):
        try:
            while threads:
                threads.pop().start()
            # not Thread.join: interrupted once, it takes the thread for ended (Python 3.11)
            with suppress(queue.Empty):
                # a signal that another thread was given is seen only by who wakes up
                ended.get(timeout=_LOOK_UP_S)
        except (KeyboardInterrupt, SystemExit) as error:
            if interruption is not None:
                raise
            interruption = error
            stop.set()
            threads.clear()
            serve()
    return Together(tuple(found[url] for url in urls), interruption)


def _on_one(url: str, work: Work, stop: threading.Event, watch: Watch) -> Outcome:
    nothing = Outcome(url, Result.FAILED_NO_STATE_CHANGE)
    if stop.is_set():
        return Outcome(url, nothing.result, Reason.ABORTED, "not begun")
    try:
        return work(url, watch, stop)
    except StepError as error:
        return Outcome(url, nothing.result, error.reason, error.detail)
    except TransportError as error:
        return Outcome(url, nothing.result, Reason.NETWORK, str(error))
    except EdgemlError as error:
        return Outcome(url, nothing.result, None, str(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours on one device must not hide the others' outcomes
        text = f"this is a bug in edgeml: {type(error).__name__}: {error}"
        return Outcome(url, Result.FAILED_UNABLE_TO_ROLLBACK, None, text)
