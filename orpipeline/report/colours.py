"""Colours that mean the same on every day: an author's follows from its name alone, never from its rank.

Authors have Petroff's ten colours ("Accessible Color Sequences for Data Visualization", 2021; `petroff10` in
Matplotlib), macro-categories have Okabe and Ito's. Both are made for people who see red and green alike. Ten colours
cannot tell all authors apart: the best known have one each, some share one of these, and any other author has one by
the hash of its name. So no colour stands without the name beside it, and lines of one colour differ in their dashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

_KNOWN_AUTHORS = {
    "deepseek": 0,
    "z-ai": 1,
    "google": 2,
    "stealth": 3,
    "openai": 4,
    "anthropic": 5,
    "mistralai": 6,
    "qwen": 7,
    "x-ai": 8,
    "typesafe": 9,
    # The second of two that share a colour.
    "xiaomi": 5,
    "tencent": 8,
    "nvidia": 9,
    "minimax": 6,
    "moonshotai": 7,
    "meta-llama": 3,
}
# Chosen so that the ten authors of the demo differ.
_SALT = b"share-658180"

_AUTHORS_ON_LIGHT = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#5cb8bd",  # Petroff's #92dadd is too pale for a line on white
)
_AUTHORS_ON_DARK = (
    "#3f90da",
    "#ffa90e",
    "#d8341a",  # Petroff's #bd1f01, #832db6 and #717581 are too dark for a line on black
    "#94a4a2",
    "#a659d8",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#7f8494",
    "#92dadd",
)
_MACROS = {"code": "#0072b2", "data": "#e69f00", "agent": "#009e73", "general": "#cc79a7"}
_MORE_MACROS = ("#d55e00", "#56b4e9")
_LIGHTER_ON_DARK = {"#0072b2": "#3b97d3"}  # Okabe and Ito's blue is dim on black


@dataclass(frozen=True)
class Theme:
    """What charts are drawn with: `paper` is the ground, `ink` for text, `muted` for what is less, `line` for grids;
    colours of authors and of macro-categories by slot (`author_slot`, `macro_slot`); the font.
    """

    paper: str
    ink: str
    muted: str
    line: str
    authors: tuple[str, ...]
    macros: tuple[str, ...]
    font: str

    def author(self, name: str | None) -> str:
        """Return an author's colour."""
        return self.muted if name is None else self.authors[author_slot(name)]

    def macro(self, key: str) -> str:
        """Return a macro-category's colour."""
        return self.macros[macro_slot(key)]


_MACRO_COLOURS = (*_MACROS.values(), *_MORE_MACROS)

PAGE = Theme(
    paper="var(--paper)",
    ink="var(--ink)",
    muted="var(--muted)",
    line="var(--line)",
    authors=tuple(f"var(--author-{slot})" for slot in range(len(_AUTHORS_ON_LIGHT))),
    macros=tuple(f"var(--macro-{slot})" for slot in range(len(_MACRO_COLOURS))),
    font="system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
)
"""CSS variables of the page, so that its charts follow light and dark with nothing drawn again."""

PICTURE = Theme(
    paper="#ffffff",
    ink="#16181d",
    muted="#5d626e",
    line="#e4e3de",
    authors=_AUTHORS_ON_LIGHT,
    macros=_MACRO_COLOURS,
    font="Liberation Sans",  # vl-convert has it on board
)
"""Dark on white, with a font that is on every machine."""


def author_slot(author: str) -> int:
    """Return the place of an author's colour among the ten: the same for a name on any day."""
    known = _KNOWN_AUTHORS.get(author)
    return _hashed(author, len(_AUTHORS_ON_LIGHT)) if known is None else known


def macro_slot(key: str) -> int:
    """Return the place of a macro-category's colour; a key that is new in the API gets one of two further colours."""
    keys = list(_MACROS)
    return keys.index(key) if key in _MACROS else len(keys) + _hashed(key, len(_MORE_MACROS))


def page_variables() -> Mapping[str, str]:
    """Return the CSS variables of authors and macro-categories, each for light and dark."""
    pairs = zip(_AUTHORS_ON_LIGHT, _AUTHORS_ON_DARK, strict=True)
    authors = {f"--author-{slot}": f"light-dark({light}, {dark})" for slot, (light, dark) in enumerate(pairs)}
    return authors | {
        f"--macro-{slot}": f"light-dark({colour}, {_LIGHTER_ON_DARK.get(colour, colour)})"
        for slot, colour in enumerate(_MACRO_COLOURS)
    }


def _hashed(name: str, slots: int) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8, salt=_SALT).digest()) % slots
