"""The templates of the pages; whatever stems from files is escaped, and what is missing is an error."""

from __future__ import annotations

import html
import json
from functools import cache
from pathlib import Path
from typing import Any

from edgeml.figures import readable_size, shorten_glued
from edgeml_converters.coral import picture


def template(name: str) -> Any:
    """Give a template by its file's name."""
    return _environment().get_template(name)


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(picture.__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sentence": _sentence, "stopped": _stopped, "json": _json, "size": readable_size}
    return environment


def _json(value: Any) -> Any:
    """Give JSON as the text of an element, where quotes need no escape: it would be half of the page."""
    import markupsafe

    return markupsafe.Markup(html.escape(json.dumps(value, indent=1), quote=False))  # noqa: S704 - escaped here


def _stopped(text: str) -> str:
    """End with one stop; names that are glued together from many are cut."""
    text = shorten_glued(text)
    return text if text.endswith((".", "…", "!", "?")) else f"{text}."


def _sentence(text: str) -> str:
    """Begin with a capital, unless a command begins it, and end with one stop."""
    first = text.partition(" ")[0]
    begins = first.isalpha() and first not in {"edgeml", "pip"}
    return _stopped(text[:1].upper() + text[1:] if begins else text)
