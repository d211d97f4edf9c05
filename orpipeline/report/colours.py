"""Colours that mean the same on every day: an author's follows from its name alone, never from its rank.

Authors' colours are near Petroff's ten ("Accessible Color Sequences for Data Visualization", 2021; `petroff10` in
Matplotlib), macro-categories' near Okabe and Ito's. They were moved, separately on light and on dark, until each has a
contrast of 3:1 with the ground and any two are a CIEDE2000 distance of 10 apart, for normal vision and for people who
lack one kind of cone (Machado, Oliveira and Fernandes, 2009). A test holds them to that.

Ten colours cannot tell all authors apart: the best known have one each, some share one of these, and any other author
has one by the hash of its name. So no colour stands without the name beside it, and lines of one colour differ in their
dashes.
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
    "#437eb8",
    "#ce8000",
    "#ae1b00",
    "#859590",
    "#832eb6",
    "#9f6858",
    "#be550d",
    "#a0915c",
    "#717581",
    "#0ea1aa",
)
_AUTHORS_ON_DARK = (
    "#6098ca",
    "#ffab16",
    "#cd3218",
    "#95a7a5",
    "#984fd9",
    "#a96c5a",
    "#e96a12",
    "#baad71",
    "#7e8291",
    "#92dadd",
)
_MACROS = ("code", "data", "agent", "general")
# The last two are for keys that are new in the API.
_MACROS_ON_LIGHT = ("#0172b2", "#c88300", "#009668", "#bc7eaa", "#bd5300", "#0c9adf")
_MACROS_ON_DARK = ("#2094e8", "#e8a006", "#049365", "#cb77a6", "#d55e00", "#54c3fe")


@dataclass(frozen=True)
class Theme:
    """What charts are drawn with: `paper` is the ground, `ink` for text, `muted` for what is less, `line` for grids;
    colours of authors and of macro-categories by slot (`author_slot`, `macro_slot`); the font; `character`, about what
    a character of a model's name takes in it, as a part of its size.
    """

    paper: str
    ink: str
    muted: str
    line: str
    authors: tuple[str, ...]
    macros: tuple[str, ...]
    font: str
    character: float

    def author(self, name: str | None) -> str:
        """Return an author's colour."""
        return self.muted if name is None else self.authors[author_slot(name)]

    def macro(self, key: str) -> str:
        """Return a macro-category's colour."""
        return self.macros[macro_slot(key)]


PAGE = Theme(
    paper="var(--paper)",
    ink="var(--ink)",
    muted="var(--muted)",
    line="var(--line)",
    authors=tuple(f"var(--author-{slot})" for slot in range(len(_AUTHORS_ON_LIGHT))),
    macros=tuple(f"var(--macro-{slot})" for slot in range(len(_MACROS_ON_LIGHT))),
    font="system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    character=0.68,  # the widest that is common, DejaVu Sans
)
"""CSS variables of the page, so that its charts follow light and dark with nothing drawn again."""

PICTURE = Theme(
    paper="#ffffff",
    ink="#16181d",
    muted="#5d626e",
    line="#e4e3de",
    authors=_AUTHORS_ON_LIGHT,
    macros=_MACROS_ON_LIGHT,
    font="Liberation Sans",  # vl-convert has it on board
    character=0.57,
)
"""Dark on white, with a font that is on every machine."""


def author_slot(author: str) -> int:
    """Return the place of an author's colour among the ten: the same for a name on any day."""
    known = _KNOWN_AUTHORS.get(author)
    return _hashed(author, len(_AUTHORS_ON_LIGHT)) if known is None else known


def macro_slot(key: str) -> int:
    """Return the place of a macro-category's colour; a key that is new in the API gets one of two further colours."""
    more = len(_MACROS_ON_LIGHT) - len(_MACROS)
    return _MACROS.index(key) if key in _MACROS else len(_MACROS) + _hashed(key, more)


def page_variables() -> Mapping[str, str]:
    """Return the CSS variables of authors and macro-categories, each for light and dark."""
    found = {}
    for name, on_light, on_dark in (
        ("author", _AUTHORS_ON_LIGHT, _AUTHORS_ON_DARK),
        ("macro", _MACROS_ON_LIGHT, _MACROS_ON_DARK),
    ):
        for slot, (light, dark) in enumerate(zip(on_light, on_dark, strict=True)):
            found[f"--{name}-{slot}"] = f"light-dark({light}, {dark})"
    return found


def _hashed(name: str, slots: int) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8, salt=_SALT).digest()) % slots
