"""Colours of authors and macro-categories. They depend on the name alone, so they are the same on every day.

Author colours are close to Petroff's ten ("Accessible Color Sequences for Data Visualization", 2021; `petroff10` in
Matplotlib). Macro-categories have greens and purples that no author has. Light and dark pages have their own colours.
Each one has a contrast of at least 3:1 with the background. Any two authors, and any two macro-categories, are at least
10 apart in CIEDE2000, for normal vision and for people who lack one type of cone (Machado, Oliveira and Fernandes,
2009). An author and a macro-category are at least 10 apart for normal vision. Tests check this.

Ten colours cannot distinguish all authors: the best known have one each, some share these, and every other author gets
one by the hash of its name. Therefore every colour has a name beside it, and lines of the same colour have different
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
    # These share a colour with an author above.
    "xiaomi": 5,
    "tencent": 8,
    "nvidia": 9,
    "minimax": 6,
    "moonshotai": 7,
    "meta-llama": 3,
}
# With this salt, the ten authors of the demo have different colours.
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
# The last two are for macro-categories that are new in the API.
_MACROS_ON_LIGHT = ("#006644", "#779977", "#554466", "#887799", "#110022", "#002200")
_MACROS_ON_DARK = ("#3ca578", "#a5c3a5", "#9678c3", "#c3b4d2", "#e1e1f0", "#5a785a")


@dataclass(frozen=True)
class Theme:
    """Colours and font of the charts.

    `paper`: background. `ink`: text. `muted`: secondary text. `line`: grid lines. `authors` and `macros`: colours, by
    `author_slot` and `macro_slot`. `character`: the estimated width of a character, as a fraction of the font size.
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
    character=0.68,  # of DejaVu Sans, the widest common font
)
"""The page's theme, in CSS variables: charts follow light and dark without being redrawn."""

PICTURE = Theme(
    paper="#ffffff",
    ink="#16181d",
    muted="#5d626e",
    line="#e4e3de",
    authors=_AUTHORS_ON_LIGHT,
    macros=_MACROS_ON_LIGHT,
    font="Liberation Sans",  # included in vl-convert
    character=0.57,
)
"""The picture's theme: dark on white, in a font that does not depend on the machine."""


def author_slot(author: str) -> int:
    """Return the index of an author's colour, which depends on the name alone."""
    known = _KNOWN_AUTHORS.get(author)
    return _hashed(author, len(_AUTHORS_ON_LIGHT)) if known is None else known


def macro_slot(key: str) -> int:
    """Return the index of a macro-category's colour. A key that is new in the API gets one of two extra colours."""
    more = len(_MACROS_ON_LIGHT) - len(_MACROS)
    return _MACROS.index(key) if key in _MACROS else len(_MACROS) + _hashed(key, more)


def page_variables() -> Mapping[str, str]:
    """Return the CSS variables of the authors' and macro-categories' colours, for light and dark."""
    variables = {}
    for name, on_light, on_dark in (
        ("author", _AUTHORS_ON_LIGHT, _AUTHORS_ON_DARK),
        ("macro", _MACROS_ON_LIGHT, _MACROS_ON_DARK),
    ):
        for slot, (light, dark) in enumerate(zip(on_light, on_dark, strict=True)):
            variables[f"--{name}-{slot}"] = f"light-dark({light}, {dark})"
    return variables


def _hashed(name: str, slots: int) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8, salt=_SALT).digest()) % slots
