"""Why an operator runs where it runs: the compiler's words, and ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Placement = Literal["tpu", "cpu", "unknown"]
Evidence = Literal["documented", "inferred", "weak", "unknown"]
"""Coral's documentation says so; compiled models show it; few of them do; nothing is known."""

MAPPED: Final = "Mapped to Edge TPU"
SUBGRAPH: Final = "More than one subgraph is not supported"
LIMIT: Final = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
DTYPE: Final = "Operation is working on an unsupported data type"
UNSUPPORTED: Final = "Operation not supported"
VERSION: Final = "Operation version not supported"
RANK: Final = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
CONST: Final = "Filter, bias, or other param is not constant at compile-time"
UNKNOWN: Final = "No compiled model shows what becomes of this operator"
"""The one sentence here that is not the compiler's."""


@dataclass(frozen=True, slots=True)
class Objection:
    """What keeps an operator off the Edge TPU, looked at by itself; or what is not known of it."""

    reason: str
    """One of the above."""
    cause: str
    """A plain sentence's beginning: which tensor, which limit, by how much."""
    remedy: str
    """What to change."""
    evidence: Evidence = "documented"

    @property
    def is_certain(self) -> bool:
        """Say whether it is known that the compiler refuses."""
        return self.evidence != "unknown"

    def __str__(self) -> str:
        return f"{self.cause}: {self.remedy}"
