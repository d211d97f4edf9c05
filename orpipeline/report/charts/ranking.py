"""The rankings: a bar for each share, and where it is known, a whisker up to its upper bound."""

from __future__ import annotations

from typing import Any

from orpipeline.report.charts import parts
from orpipeline.report.charts.parts import Spec
from orpipeline.report.colours import Theme

WIDE, NARROW = 38, 56
"""The height of a row in the wide and in the narrow form, in pixels."""
_BAR = "datum.kind !== 'divider'"
_NAME_ROOM = "clamp(0.34 * width, 180, 290)"
_CERTAIN = "!test(/[\N{EN DASH}+]/, datum.ranks)"
_TOOLTIPS = {
    "id": "Model",
    "about": "Author",
    "share_text": "Attributed share",
    "upper_text": "Upper bound",
    "ranks": "Possible ranks",
    "moved": "Change in 7 days",
    "listed": "Listed under",
    "top": "Top task",
}
_AUTHOR_TOOLTIPS = {
    "id": "Author",
    "about": "Listed",
    "share_text": "Attributed share",
    "upper_text": "Upper bound",
    "ranks": "Possible ranks",
    "top": "Top model",
}


def models(theme: Theme, *, narrow: bool, since: str = "", name_room: Any = _NAME_ROOM, **frame: Any) -> Spec:
    """Return the models' ranking of the chosen measure and scope, wide or narrow.

    `since` is the initial value of the parameter with the heading of the column of changes; without a heading, there is
    no column. `name_room` is the width of the names in the wide form: pixels, or an expression of the chart's `width`.
    """
    layers = [*_narrow(theme), *_changes(theme, dy=3)] if narrow else _wide(theme, name_room)
    spec = parts.chart(
        [*layers, parts.touch(NARROW if narrow else WIDE, _TOOLTIPS, _BAR)],
        theme,
        height={"step": NARROW if narrow else WIDE},
        params={"measure": "usage", "scope": "all"},
        **frame,
    )
    spec["params"].append({"name": "since", "value": since})
    return spec


def authors(theme: Theme) -> Spec:
    """Return the authors' ranking of the chosen measure and scope. It has no whiskers: most would cross the chart."""
    return parts.chart(
        [*_narrow(theme, whiskers=False), parts.touch(NARROW, _AUTHOR_TOOLTIPS, _BAR)],
        theme,
        height={"step": NARROW},
        params={"measure": "usage", "scope": "all"},
    )


def task(theme: Theme, *, narrow: bool) -> Spec:
    """Return the models of the chosen task, and the share of all models that it does not list."""
    height = NARROW if narrow else WIDE
    scale = parts.scale_between("30", "width - 4") if narrow else parts.scale_between("330", "width - 76")
    dy, name_dy = (16, -10) if narrow else (0, -8)
    right, only = "width - 2", "datum.kind === 'bar'"
    layers = [
        parts.rules(height, theme, _BAR),
        *parts.divider(height, theme),
        parts.bar("share", scale, size=9 if narrow else 15, dy=dy, only=only),
        parts.bar("share", scale, size=8 if narrow else 14, dy=dy, filled=False, only="datum.kind === 'rest'"),
        _rank(theme, 22, dy=name_dy if narrow else 0),
        parts.name(46, "width - 112" if narrow else 276, theme, dy=name_dy, only=_BAR),
        parts.text(
            "share_text", right, theme, align="right", dy=name_dy if narrow else 0, size=14, weight=600, only=_BAR
        ),
    ]
    if not narrow:
        layers += [
            parts.dot(50, dy=9, size=50, only=_BAR),
            parts.text("about", 59, theme, dy=9, size=12, quiet=True, limit=260, only=_BAR),
        ]
    tooltips = {"id": "Model", "about": "Author", "share_text": "Share of the task", "ranks": "Possible ranks"}
    layers.append(parts.touch(height, tooltips, _BAR))
    return parts.chart(layers, theme, height={"step": height}, params={"measure": "usage", "task": ""})


def task_authors(theme: Theme) -> Spec:
    """Return the authors of the chosen task."""
    tooltips = {"id": "Author", "about": "Listed", "share_text": "Share of the task", "ranks": "Possible ranks"}
    return parts.chart(
        [*_narrow(theme, whiskers=False), parts.touch(NARROW, tooltips, _BAR)],
        theme,
        height={"step": NARROW},
        params={"measure": "usage", "task": ""},
    )


def _wide(theme: Theme, name_room: Any) -> list[Spec]:
    scale = parts.scale_between(f"62 + {name_room}", "width - (since ? 168 : 78)")
    right = "width - (since ? 92 : 2)"
    return [
        _head("Rank", 22, theme, align="center"),
        _head("Model and author", 50, theme),
        _head("Attributed share, with its upper bound", f"62 + {name_room}", theme),
        _head("Share", right, theme, align="right"),
        parts.rules(WIDE, theme, _BAR),
        *parts.divider(WIDE, theme),
        _cap(scale, theme, size=WIDE),
        _rank(theme, 22),
        parts.name(50, name_room, theme, dy=-8, only=_BAR),
        parts.dot(54, dy=9, only=_BAR),
        parts.text("about", 63, theme, dy=9, size=12, quiet=True, limit=f"{name_room} - 13", only=_BAR),
        *parts.whisker("share", "upper", scale, theme, tick=10, only=_BAR),
        parts.bar("share", scale, size=16, only=_BAR),
        parts.text("share_text", right, theme, align="right", dy=-8, size=15, weight=600, only=_BAR),
        parts.text("up_to", right, theme, align="right", dy=9, size=12, quiet=True, only=_BAR),
        *_changes(theme),
    ]


def _narrow(theme: Theme, *, whiskers: bool = True) -> list[Spec]:
    scale, right = parts.scale_between("46", "width - 4"), "width - 2"
    layers = [
        parts.rules(NARROW, theme, _BAR),
        *parts.divider(NARROW, theme),
        _rank(theme, 22, dy=-14),
        parts.name(46, "width - 116", theme, dy=-14, only=_BAR),
        parts.text("share_text", right, theme, align="right", dy=-14, size=14, weight=600, only=_BAR),
        parts.dot(50, dy=3, size=50, only=_BAR),
        parts.text("about", 59, theme, dy=3, size=12, quiet=True, limit="width - 140", only=_BAR),
        parts.bar("share", scale, dy=17, size=8, only=_BAR),
    ]
    if whiskers:
        layers += [
            *parts.whisker("share", "upper", scale, theme, dy=17, tick=8, only=_BAR),
            _cap(scale, theme, size=12, dy=17),
        ]
    return layers


def _changes(theme: Theme, *, dy: float = 0) -> list[Spec]:
    """Return the column of changes by requests; it is empty if the day to compare with is missing."""
    head = _head("", "width - 2", theme, align="right", only="measure === 'usage'")
    head["encoding"]["text"] = {"value": {"expr": "since"}}
    return [
        head,
        parts.text("moved", "width - 2", theme, align="right", dy=dy, only=f"{_BAR} && since"),
    ]


def _rank(theme: Theme, x: float, *, dy: float = 0) -> Spec:
    """Return the rank: large if it is certain, small if it is a range."""
    rank = parts.text("ranks", x, theme, align="center", dy=dy, only=_BAR)
    del rank["mark"]["fontSize"]
    rank["encoding"]["size"] = {"condition": {"test": _CERTAIN, "value": 16}, "value": 12}
    rank["encoding"]["color"] = {"condition": {"test": _CERTAIN, "value": theme.ink}, "value": theme.muted}
    return rank


def _cap(scale: Spec, theme: Theme, *, size: int, dy: float = 0) -> Spec:
    """Return a piece of the vertical line at `cap`: the most that a model on no list can have."""
    mark = {"type": "tick", "thickness": 1, "size": size, "yOffset": dy, "orient": "vertical"}
    encoding = {"x": parts.quantity("cap", scale), "y": parts.PLACE, "color": {"value": theme.ink}}
    return parts.layer(mark, encoding, "datum.kind === 'bar'")


def _head(words: str, x: parts.X, theme: Theme, *, align: str = "left", only: str = "") -> Spec:
    """Return a column heading above the chart, shown if the expression `only` is true."""
    mark = {"type": "text", "align": align, "baseline": "middle", "fontSize": 11, "clip": False}
    encoding = {
        "x": parts.pixels(x),
        "y": {"value": -12},
        "text": {"field": "head", "type": "nominal"},
        "color": {"value": theme.muted},
    }
    return {"data": {"values": [{"head": words}]}, **parts.layer(mark, encoding, only)}
