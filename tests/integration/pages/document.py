"""HTML as a browser without scripts sees it, read by the standard library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "input", "br", "hr", "img"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What is to be read, white space as a browser shows it."""
        return re.sub(r"\s+", " ", self._text()).strip()

    def _text(self) -> str:
        return "".join(one if isinstance(one, str) else f" {one._text()} " for one in self.children)

    def all(self, tag: str = "", **attributes: str) -> Iterator[Element]:
        """Every element below with this tag and these attributes."""
        for one in self.children:
            if isinstance(one, Element):
                if tag in ("", one.tag) and attributes.items() <= one.attributes.items():
                    yield one
                yield from one.all(tag, **attributes)

    def one(self, tag: str = "", **attributes: str) -> Element:
        found = list(self.all(tag, **attributes))
        assert len(found) == 1, (tag, attributes, [each.text for each in found])
        return found[0]

    def link(self, text: str) -> str:
        """Where the one link with this text leads."""
        found = {each.attributes["href"] for each in self.all("a") if each.text == text}
        assert len(found) == 1, (text, found, [each.text for each in self.all("a")])
        return found.pop()

    def table(self, caption: str) -> list[list[str]]:
        """The cells of the table with this caption, without its head."""
        (table,) = [each for each in self.all("table") if each.one("caption").text.startswith(caption)]
        rows = table.one("tbody").all("tr")
        return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in rows]


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_html(text: str) -> Element:
    """Read a page; an element that is not closed, or closed by another, is an error."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == [parser.root], f"not closed: {[one.tag for one in parser.open[1:]]}"
    return parser.root
