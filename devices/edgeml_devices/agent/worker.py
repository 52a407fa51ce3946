"""A thread for each model: none waits for another's download, probation or hold."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from edgeml.installed import InstalledModel
from edgeml_devices.agent.deployment import LOG, Deployment, Nudge, Tools, Wish
from edgeml_devices.agent.failures import StoppedError
from edgeml_devices.agent.machine import recover, run
from edgeml_devices.agent.record import new_record
from edgeml_devices.messages import State

_LOOK_EVERY_S: Final = 60.0
RESTING: Final = frozenset({State.IDLE, State.QUARANTINED})


class Worker:
    """Works on one model until it is stopped."""

    def __init__(
        self,
        tools: Tools,
        model: InstalledModel,
        wish: Callable[[], Wish | None],
        rested: Callable[[Deployment], None],
    ) -> None:
        self.nudge = Nudge()
        self.deployment = Deployment(tools, model, new_record(model.name), wish, self.nudge)
        self.recovered = threading.Event()
        """Set once the record is what the disk says."""
        self._rested = rested
        self._thread = threading.Thread(target=self._work, name=f"model {model.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            while True:
                try:
                    if not self.recovered.is_set():
                        recover(self.deployment)
                        self.recovered.set()
                    run(self.deployment)
                    self._rested(self.deployment)
                except (StoppedError, SystemExit):
                    raise
                except Exception:  # noqa: BLE001 - the next look may do better; other models go on
                    LOG.exception("%s: cannot work on it now", self.deployment.model.name)
                self.nudge.sleep(_LOOK_EVERY_S)
        except StoppedError:
            return
