"""The report's picture for posts, 1200 x 675 pixels: the headline and the first models. SVG, drawn as PNG by resvg.

The font is in the package (Inter, SIL Open Font License), so the picture is the same on every machine.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import resvg_py
from markupsafe import escape

from orpipeline.report.data import ReportData
from orpipeline.report.views import views
from orpipeline.report.wording import percent
from orpipeline.text import plain

WIDTH, HEIGHT = 1200, 675
_FONTS = [str(Path(__file__).parent / "fonts" / f"Inter-{weight}.ttf") for weight in ("Regular", "Bold")]
_LEFT, _RIGHT, _ROWS, _LONGEST = 56, WIDTH - 56, 6, 44
_BOLD, _QUIET, _END = 'font-weight="700" fill="#15181e"', 'fill="#5a6270"', 'text-anchor="end"'
_NOTE = "Bar: what the published lists attribute. Line: the most that they allow. A range shows the possible ranks."


def render_card(data: ReportData) -> bytes:
    """Return the picture as PNG."""
    drawn = resvg_py.svg_to_bytes(svg_string=card(data), font_files=_FONTS, skip_system_fonts=True, font_family="Inter")
    return bytes(drawn)


def card(data: ReportData) -> str:
    """Return the picture as SVG."""
    view, top, step = views(data)[0], 190, 66
    parts = [
        _text(_LEFT, 74 + 42 * place, line, 34, _BOLD) for place, line in enumerate(_lines(view.headline.striptags()))
    ]
    for place, row in enumerate(view.rows[:_ROWS]):
        x, y, scale = _LEFT + 70, top + step * place, (_RIGHT - _LEFT - 200) / (view.widest or 1.0)
        share, upper = scale * row["share"], scale * row["upper"]
        name, author = _shortened(row["name"]), _shortened(row["author"])
        parts += [
            _text(x - 20, y + 20, row["ranks"], 22, f"{_BOLD if row['is_certain'] else _QUIET} {_END}"),
            f'<text x="{x}" y="{y + 20}" font-size="22" {_BOLD}>{escape(name)}'
            f'<tspan dx="12" font-weight="400" {_QUIET}>{escape(author)}</tspan></text>',
            f'<rect x="{x}" y="{y + 32}" width="{share:.1f}" height="14" fill="#1d5fc2"/>',
            f'<rect x="{x + share:.1f}" y="{y + 38}" width="{upper - share:.1f}" height="2" fill="#9db4d6"/>',
            _text(_RIGHT, y + 44, percent(row["share"]), 28, f"{_BOLD} {_END}"),
        ]
    parts += [
        _text(_LEFT, 604, _NOTE, 17, _QUIET),
        _text(_LEFT, 642, plain(data.snapshot["citation"]), 17, _QUIET),
        _text(_RIGHT, 642, "Computed with orpipeline", 17, f"{_QUIET} {_END}"),
    ]
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect {size} fill="#fff"/>{"".join(parts)}</svg>'


def _lines(headline: str) -> list[str]:
    """Return a headline as two or three lines of about the same length."""
    width = 58 if len(headline) > 120 else max(40, len(headline) // 2 + 8)
    return textwrap.wrap(headline, width, max_lines=3, placeholder=" …")


def _text(x: float, y: float, text: str, size: int, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {style}>{escape(text)}</text>'


def _shortened(text: str) -> str:
    """Return text without its middle if it is too long for a line."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
