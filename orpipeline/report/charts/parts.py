"""The parts that the charts share: text, bars and lines in the theme's colours, scales, and the frame of a chart.

Every part is one layer of a Vega-Lite chart. It draws each row of the data at its `place`, 1 at the top. A `dy` moves a
mark down, in pixels. An x is in pixels: a number, or an expression of the chart's `width`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orpipeline.report.colours import Theme

Spec = dict[str, Any]
X = float | str

PLACE: Spec = {"field": "place", "type": "ordinal", "axis": None, "title": None}
OF_ROW: Spec = {"field": "colour", "type": "nominal", "scale": None, "legend": None}
"""The colour channel for rows that have their colour in the column `colour`."""


def pixels(x: X) -> Spec:
    """Return a channel with a fixed position."""
    return {"value": {"expr": x} if isinstance(x, str) else x}


def layer(mark: Mapping[str, Any], encoding: Mapping[str, Any], only: str = "") -> Spec:
    """Return a layer that draws the rows that meet the expression `only`."""
    transform = {"transform": [{"filter": only}]} if only else {}
    return {**transform, "mark": dict(mark), "encoding": dict(encoding)}


def text(
    field: str,
    x: X,
    theme: Theme,
    *,
    align: str = "left",
    dy: float = 0,
    size: int = 13,
    weight: int = 400,
    quiet: bool = False,
    limit: X | None = None,
    only: str = "",
) -> Spec:
    """Return the text of `field`, cut off after `limit` pixels; `quiet` text is in the secondary colour."""
    mark: Spec = {"type": "text", "align": align, "dy": dy, "fontSize": size, "fontWeight": weight}
    if limit is not None:
        mark["limit"] = {"expr": limit} if isinstance(limit, str) else limit
    encoding = {
        "x": pixels(x),
        "y": PLACE,
        "text": {"field": field, "type": "nominal"},
        "color": {"value": theme.muted if quiet else theme.ink},
    }
    return layer(mark | {"baseline": "middle"}, encoding, only)


def name(x: X, room: X, theme: Theme, *, dy: float, size: int = 14, only: str = "") -> Spec:
    """Return each row's `name`, shortened in the middle to fit `room`."""
    shown = text("fitted", x, theme, dy=dy, size=size, weight=600, limit=str(room))
    # Bold characters are wider.
    shorten = {"calculate": fitted("name", str(room), 1.06 * size, theme), "as": "fitted"}
    return shown | {"transform": [*([{"filter": only}] if only else []), shorten]}


def fitted(field: str, room: str, size: float, theme: Theme) -> str:
    """Return an expression for the text of `field`, shortened in the middle to fit `room` at a font size.

    Names of one model family differ at their end, which Vega's own `limit` would cut off. This function estimates the
    width of a character; Vega knows it, so use `limit` as well, in case the estimate is too small.
    """
    length = f"floor(({room}) / {theme.character * size:g}) - 1"
    first, last = f"slice(datum.{field}, 0, ceil(({length}) / 2))", f"slice(datum.{field}, -floor(({length}) / 2))"
    return f"length(datum.{field}) <= {length} + 1 ? datum.{field} : {first} + '…' + {last}"


def bar(field: str, scale: Spec, *, size: int, dy: float = 0, filled: bool = True, only: str = "") -> Spec:
    """Return a bar from zero to `field`."""
    mark = {"type": "bar", "size": size, "yOffset": dy, "cornerRadiusEnd": 2, "filled": filled}
    return layer(mark, {"x": quantity(field, scale), "y": PLACE, "color": OF_ROW}, only)


def whisker(
    start: str, end: str, scale: Spec, theme: Theme, *, dy: float = 0, tick: int = 9, only: str = ""
) -> list[Spec]:
    """Return a thin line from the field `start` to the field `end`, with a tick at its end."""
    colour = {"value": theme.muted}
    line = {"type": "rule", "strokeWidth": 1.25, "yOffset": dy, "y2Offset": dy}
    stop = {"type": "tick", "thickness": 1.5, "size": tick, "yOffset": dy, "orient": "vertical"}
    return [
        layer(line, {"x": quantity(start, scale), "x2": {"field": end}, "y": PLACE, "color": colour}, only),
        layer(stop, {"x": quantity(end, scale), "y": PLACE, "color": colour}, only),
    ]


def dot(x: X, *, dy: float = 0, size: int = 60, only: str = "") -> Spec:
    """Return a dot, to draw before the author's name."""
    mark = {"type": "circle", "size": size, "yOffset": dy, "opacity": 1}
    return layer(mark, {"x": pixels(x), "y": PLACE, "color": OF_ROW}, only)


def touch(height: int, tooltips: Mapping[str, str], only: str = "") -> Spec:
    """Return an invisible box over each row. Its tooltip shows the columns of `tooltips` under their titles."""
    shown = [{"field": field, "type": "nominal", "title": title} for field, title in tooltips.items()]
    encoding = {"x": {"value": 0}, "x2": {"value": {"expr": "width"}}, "y": PLACE, "tooltip": shown}
    return layer({"type": "rect", "opacity": 0, "height": height}, encoding, only)


def rules(height: int, theme: Theme, only: str = "") -> Spec:
    """Return a thin line below each row."""
    mark = {"type": "rule", "strokeWidth": 1, "yOffset": height / 2, "y2Offset": height / 2}
    encoding = {"x": {"value": 0}, "x2": {"value": {"expr": "width"}}, "y": PLACE, "color": {"value": theme.line}}
    return layer(mark, encoding, only)


def divider(height: int, theme: Theme) -> list[Spec]:
    """Return the rows of the kind `divider`: a dashed line across the chart, and its `name` below."""
    only = "datum.kind === 'divider'"
    offset = -height / 2 + 8
    mark = {"type": "rule", "strokeWidth": 1.5, "strokeDash": [5, 4], "yOffset": offset, "y2Offset": offset}
    encoding = {"x": {"value": 0}, "x2": {"value": {"expr": "width"}}, "y": PLACE, "color": {"value": theme.muted}}
    return [layer(mark, encoding, only), text("name", 0, theme, dy=4, size=12, quiet=True, only=only)]


def quantity(field: str, scale: Spec, axis: Spec | None = None) -> Spec:
    """Return an x channel for a share."""
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis, "title": None}


def scale_between(start: str, end: str) -> Spec:
    """Return a scale with zero that reaches from pixel `start` to pixel `end` (expressions of `width`)."""
    return {"range": [{"expr": start}, {"expr": end}], "zero": True, "nice": False}


def chosen(*names: str) -> str:
    """Return an expression that is true for the rows of the reader's choice, for parameters named like columns."""
    return " && ".join(f"datum.{name} === {name}" for name in names)


def chart(
    layers: Sequence[Spec],
    theme: Theme,
    *,
    height: Any,
    params: Mapping[str, str] | None = None,
    width: Any = 800,
    padding: Any = 2,
    background: str = "transparent",
    title: Spec | None = None,
    fit: str = "fit-x",
) -> Spec:
    """Return the layers as a chart in the theme's style.

    `params` are the reader's choices with their initial values; the chart draws the rows that match all of them. The
    chart is as wide as `width`; with `fit="fit"`, it is also as high as `height`.
    """
    choices = params or {}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"name": "rows"},
        "params": [{"name": name, "value": value} for name, value in choices.items()],
        "transform": [{"filter": chosen(*choices)}] if choices else [],
        "width": width,
        "height": height,
        "padding": padding,
        "background": background,
        "autosize": {"type": fit, "contains": "padding"},
        **({"title": title} if title else {}),
        "layer": list(layers),
        "config": {
            "font": theme.font,
            "aria": False,
            "view": {"stroke": None},
            "text": {"color": theme.ink},
            "axis": {
                "domain": False,
                "ticks": False,
                "grid": True,
                "gridColor": theme.line,
                "labelColor": theme.muted,
                "labelFontSize": 11,
                "labelPadding": 6,
                "title": None,
            },
            "scale": {"bandPaddingInner": 0, "bandPaddingOuter": 0},
        },
    }
