"""What operators send as JSON: only what every database can store and every page can show."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, model_validator

_LARGEST: Final = 2**63 - 1
_DEEPEST: Final = 32


class Body(BaseModel):
    """What a caller sends: a field that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _require_storable(cls, data: Any) -> Any:
        _require_storable(data, _DEEPEST)
        return data


def _require_storable(data: Any, levels: int) -> None:
    """Refuse texts with NUL or halves of surrogate pairs, and integers of more than 63 bits."""
    match data:
        case str() if "\0" in data or any("\ud800" <= sign <= "\udfff" for sign in data):
            raise ValueError("a text holds a NUL or half of a surrogate pair, which cannot be stored")
        case int() if abs(data) > _LARGEST:
            raise ValueError("a number has more than 63 bits")
        case dict() | list() if not levels:
            raise ValueError(f"nested more than {_DEEPEST} deep")
        case dict():
            for name, value in data.items():
                _require_storable(name, levels - 1)
                _require_storable(value, levels - 1)
        case list():
            for value in data:
                _require_storable(value, levels - 1)
