"""HTML in which text cannot become markup: what is no `Html` already is escaped wherever it is put.

Pages hold names of persons and files that somebody else chose. Building them from elements rather than from templates
leaves no place at which escaping could be forgotten.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from device_sim.wording import printable

_VOID = frozenset({"br", "img", "link", "meta"})


class Html(str):
    """Text that is markup already; say so only of what is known to be."""

    __slots__ = ()

    @staticmethod
    def of(text: str) -> Html:
        """`text` as markup: itself if it is, else escaped and without control characters."""
        return text if isinstance(text, Html) else Html(html.escape(printable(text)))


def tag(name: str, /, *children: str, **attributes: str) -> Html:
    """The element `name` with `children`; of an attribute's name a last `_` goes and others become `-`."""
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{Html.of(value)}"' for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{words}>")
    return Html(f"<{name}{words}>{joined(children)}</{name}>")


def joined(children: Iterable[str]) -> Html:
    """All `children` one after the other, as markup."""
    return Html("".join(Html.of(child) for child in children))


def table(head: Iterable[str], rows: Iterable[Iterable[str]], **attributes: str) -> Html:
    """A table with one row of headings; the first cell of each row is its heading."""
    headings = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = (tag("tr", *(_cell(place, text) for place, text in enumerate(row))) for row in rows)
    return tag("table", tag("thead", headings), tag("tbody", *body), **attributes)


def _cell(place: int, text: str) -> Html:
    return tag("td", text) if place else tag("th", text, scope="row")
