"""Whether a device can run a release, and what it would fetch, by what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeml import typed_json
from edgeml.choice import candidates, fitting
from edgeml.errors import EdgemlError, MessageError
from edgeml.manifest import Manifest
from edgeml.targets import target_from_json
from edgeml_devices.messages import Facts


@dataclass(frozen=True, slots=True)
class Fitting:
    """What a device could run."""

    variants: tuple[str, ...] = ()
    """Those that it would fetch, the likeliest first; none where it has not said what it is."""
    unfit: str = ""
    """Why none fits. A device that has not said what it is gets the benefit of the doubt."""


class Fit:
    """The variants of one release by facts, remembered for each kind of them: a fleet has few."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._found: dict[str, Fitting] = {}

    def of(self, facts: Mapping[str, Any] | None) -> Fitting:
        """Judge one device."""
        if not facts:
            return Fitting()
        key = json.dumps([facts.get("target"), facts.get("engines")], sort_keys=True)
        if key not in self._found:
            self._found[key] = self._judge(facts)
        return self._found[key]

    def _judge(self, facts: Mapping[str, Any]) -> Fitting:
        try:
            read = typed_json.read(Facts, facts, "facts")
            machine = target_from_json(read.target, "facts.target")
        except MessageError:
            return Fitting()
        try:
            choices = candidates(fitting(self.manifest, machine, read.engines), machine)
        except EdgemlError as error:
            return Fitting(unfit=str(error))
        return Fitting(tuple(one.variant.name for one in choices))
