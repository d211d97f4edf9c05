"""The charts: Vega-Lite through Altair, compiled to Vega. Each is drawn wide and narrow, of rows worded in Python.

A chart names its rows (`alt.NamedData`); the page holds them once for both widths. What a reader switches are the
parameters `measure` (`usage` or `token`), `scope` and `task`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from orpipeline.report import rows
from orpipeline.report.colours import PICTURE, Theme
from orpipeline.report.data import ReportData
from orpipeline.report.wording import count_text, day_text
from orpipeline.text import plain

Rows = Sequence[Mapping[str, Any]]
_WIDTH = alt.expr("width")
_HISTORY_HEIGHT = 380
_PICTURE_WIDTH = 740
_PICTURE_NAME_ROOM = 248
_NAME_ROOM = "clamp(0.28 * width, 190, 296)"  # the most takes nearly every name whole, the least leaves the bars room
VALIDATE = False
"""Whether every part of a chart is held against Vega-Lite's schema."""


def _layer() -> Any:
    """Return a layer that draws the rows of its chart."""
    return alt.Chart(alt.Undefined)


@dataclass(frozen=True)
class Pen:
    """Draws text and marks in the theme's colours, one row of the chart for each `place`."""

    theme: Theme

    @property
    def place(self) -> Any:
        """Where a row of the chart stands, from above."""
        return alt.Y("place:O", axis=None, title=None)

    def text(
        self,
        field: str,
        x: Any,
        *,
        align: Any = "left",
        dy: float = 0,
        size: int = 13,
        weight: int = 400,
        colour: str | None = None,
        limit: Any = None,
        only: str | None = None,
    ) -> Any:
        """Return one text a row, `x` and `limit` in pixels or as an expression of the chart's `width`."""
        mark: dict[str, Any] = {"align": align, "dy": dy, "fontSize": size, "fontWeight": weight, "baseline": "middle"}
        if limit is not None:
            mark["limit"] = limit
        chart = _layer().mark_text(**mark)
        chart = chart.transform_filter(only) if only else chart
        return chart.encode(
            x=alt.value(x), y=self.place, text=alt.Text(f"{field}:N"), color=alt.value(colour or self.theme.ink)
        )

    def model(self, x: Any, *, room: Any, dy: float) -> Any:
        """Return a row's model, its name shortened in the middle to `room` (pixels, or an expression of `width`)."""
        text = self.text("fitted", x, dy=dy, size=14, weight=600, limit=alt.expr(f"{room}"))
        return text.transform_calculate(fitted=_fitted("name", room, 14, self.theme))

    def bar(self, field: str, scale: Any, *, size: int, dy: float = 0, axis: Any = None, filled: bool = True) -> Any:
        """Return one bar a row from zero to `field`, in the row's `colour`."""
        return (
            _layer()
            .mark_bar(size=size, yOffset=dy, cornerRadiusEnd=2, filled=filled)
            .encode(
                x=alt.X(f"{field}:Q", scale=scale, axis=axis, title=None),
                y=self.place,
                color=alt.Color("colour:N", scale=None, legend=None),
            )
        )

    def whisker(self, start: str, end: str, scale: Any, *, dy: float = 0, tick: int = 9) -> Any:
        """Return a thin line from `start` to `end` with a stroke at its end."""
        x = alt.X(f"{start}:Q", scale=scale, axis=None, title=None)
        line = (
            _layer()
            .mark_rule(strokeWidth=1.25, yOffset=dy, y2Offset=dy)
            .encode(x=x, x2=f"{end}:Q", y=self.place, color=alt.value(self.theme.muted))
        )
        stop = (
            _layer()
            .mark_tick(thickness=1.5, size=tick, yOffset=dy, orient="vertical")
            .encode(
                x=alt.X(f"{end}:Q", scale=scale, axis=None, title=None),
                y=self.place,
                color=alt.value(self.theme.muted),
            )
        )
        return line + stop

    def dot(self, x: float, *, dy: float = 0, size: int = 60) -> Any:
        """Return a dot in the row's colour, which stands before an author's name."""
        return (
            _layer()
            .mark_circle(size=size, yOffset=dy, opacity=1)
            .encode(x=alt.value(x), y=self.place, color=alt.Color("colour:N", scale=None, legend=None))
        )

    def touch(self, height: int, tooltips: Mapping[str, str]) -> Any:
        """Return what the pointer meets: an unseen box over each row that tells the columns of `tooltips` by title."""
        return (
            _layer()
            .mark_rect(opacity=0, height=height)
            .encode(
                x=alt.value(0),
                x2=alt.value(_WIDTH),
                y=self.place,
                tooltip=[alt.Tooltip(f"{field}:N", title=title) for field, title in tooltips.items()],
            )
        )

    def rules(self, height: int) -> Any:
        """Return a hairline under each row."""
        half = height / 2
        return (
            _layer()
            .mark_rule(strokeWidth=1, yOffset=half, y2Offset=half)
            .encode(x=alt.value(0), x2=alt.value(_WIDTH), y=self.place, color=alt.value(self.theme.line))
        )


def _fitted(field: str, room: Any, size: int, theme: Theme) -> str:
    """Return an expression of a text that fits: what tells models of one family apart stands at its end.

    Vega's own `limit` cuts the end. It knows the font's true widths, so it still cuts what this guess leaves too long.
    """
    kept = f"floor(({room}) / {theme.character * size:g}) - 1"
    first, last = f"slice(datum.{field}, 0, ceil(({kept}) / 2))", f"slice(datum.{field}, -floor(({kept}) / 2))"
    return f"length(datum.{field}) <= {kept} + 1 ? datum.{field} : {first} + '…' + {last}"


def _from(start: str, end: str, **options: Any) -> Any:
    """Return a scale that spans the chart from one expression of `width` to another."""
    return alt.Scale(range=[alt.expr(start), alt.expr(end)], zero=True, nice=False, **options)


def _picked(*params: str) -> str:
    return " && ".join(f"datum.{name} === {name}" for name in params)


def _params(**values: str) -> list[Any]:
    return [alt.param(name=name, value=value) for name, value in values.items()]


def _finished(
    layers: Sequence[Any], theme: Theme, data: Any, *, params: Sequence[Any], keep: str, width: Any, height: Any
) -> Any:
    """Return the layers as one chart of the rows that `keep` lets through, with the theme's look."""
    chart = alt.layer(*layers, data=data).properties(
        width=width, height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    )
    if keep:
        chart = chart.transform_filter(keep)
    return (
        chart.add_params(*params)
        .configure(
            font=theme.font,
            background="transparent",
            aria=False,
            padding=2,
        )
        .configure_view(stroke=None)
        .configure_text(color=theme.ink)
        .configure_axis(
            domain=False,
            ticks=False,
            grid=True,
            gridColor=theme.line,
            labelColor=theme.muted,
            labelFontSize=11,
            labelPadding=6,
            title=None,
        )
        .configure_scale(bandPaddingInner=0, bandPaddingOuter=0)
    )


_LEADERBOARD_TOOLTIPS = {
    "model_id": "Model",
    "author": "Author",
    "share_text": "Attributed",
    "upper_text": "At most",
    "range_text": "Possible ranks",
    "change_text": "7 days",
    "tasks_text": "Listed in",
    "top_task": "Most used for",
}


def leaderboard(theme: Theme, data: Any, *, narrow: bool, width: Any = "container", name_room: Any = _NAME_ROOM) -> Any:
    """Return the leaderboard: bars for the attributed shares, whiskers to the upper bounds.

    `name_room` is how many pixels a wide chart gives to the models' names, or an expression of its `width`.
    """
    layers = _narrow_leaderboard(Pen(theme)) if narrow else _wide_leaderboard(Pen(theme), name_room)
    return _finished(
        layers,
        theme,
        data,
        params=_params(measure="usage", scope="all"),
        keep=_picked("measure", "scope"),
        width=width,
        height=alt.Step(66 if narrow else 44),
    )


def _wide_leaderboard(pen: Pen, name_room: Any) -> list[Any]:
    theme, scale = pen.theme, _from(f"106 + {name_room}", "width - 172")
    right, change = alt.expr("width - 94"), alt.expr("width - 2")
    small: dict[str, Any] = {"size": 12, "colour": theme.muted}
    return [
        _head("Rank", 28, theme, align="right"),
        _head("Possible", 64, theme, align="center", only="measure === 'usage'"),
        _head("Model", 98, theme),
        _head("Attributed, and at most", alt.expr(f"106 + {name_room}"), theme),
        _head("Share", right, theme, align="right"),
        _head("7 days", change, theme, align="right", only="measure === 'usage'"),
        pen.rules(44),
        pen.text("rank", 28, align="right", size=17, weight=600),
        pen.text("range_text", 64, align="center", **small),
        pen.model(98, dy=-8, room=name_room),
        pen.dot(102, dy=9),
        pen.text("author", 111, dy=9, limit=alt.expr(f"{name_room} - 13"), **small),
        pen.whisker("share", "upper", scale, tick=10),
        pen.bar("share", scale, size=16),
        pen.text("share_text", right, align="right", dy=-8, size=15, weight=600),
        pen.text("up_to", right, align="right", dy=9, **small),
        pen.text("moved", change, align="right", size=13),
        pen.touch(44, _LEADERBOARD_TOOLTIPS),
    ]


def _head(text: str, x: Any, theme: Theme, *, align: Any = "left", only: str = "") -> Any:
    """Return a column's head above the chart."""
    head = alt.Chart(alt.InlineData([{"head": text}]))
    head = head.transform_filter(only) if only else head
    return head.mark_text(align=align, baseline="middle", fontSize=11, clip=False).encode(
        x=alt.value(x), y=alt.value(-12), text="head:N", color=alt.value(theme.muted)
    )


def _narrow_leaderboard(pen: Pen) -> list[Any]:
    theme, scale = pen.theme, _from("30", "width - 4")
    right = alt.expr("width - 2")
    small: dict[str, Any] = {"size": 12, "colour": theme.muted}
    return [
        pen.rules(66),
        pen.text("rank", 18, align="right", dy=-19, size=15, weight=600),
        pen.model(30, dy=-19, room="width - 92"),
        pen.text("share_text", right, align="right", dy=-19, size=14, weight=600),
        pen.dot(34, dy=0, size=50),
        pen.text("range_and_author", 43, limit=alt.expr("width - 122"), **small),
        pen.text("moved", right, align="right", size=12),
        pen.whisker("share", "upper", scale, dy=18, tick=8),
        pen.bar("share", scale, dy=18, size=9),
        pen.touch(66, _LEADERBOARD_TOOLTIPS),
    ]


def task_mix(theme: Theme, data: Any, *, narrow: bool, width: Any = "container") -> Any:
    """Return each task's share of requests (a full dot) against that of tokens (a ring), by macro-category."""
    pen, height = Pen(theme), 44 if narrow else 27
    scale = _from("4", "width - 6") if narrow else _from("210", "width - 170")
    dy, text_dy = (9.0, -8.0) if narrow else (0.0, 0.0)
    usage_x, token_x = alt.expr("width - 78"), alt.expr("width - 4")
    axis = None if narrow else alt.Axis(format="%", orient="top", tickCount=5)
    colour = alt.Color("colour:N", scale=None, legend=None)
    tasks = _layer().transform_filter("datum.kind === 'task'")
    link = tasks.mark_rule(strokeWidth=3, opacity=0.45, yOffset=dy, y2Offset=dy).encode(
        x=alt.X("usage:Q", scale=scale, axis=axis, title=None),
        x2="token:Q",
        y=pen.place,
        color=colour,
    )
    requests = tasks.mark_circle(size=95, opacity=1, yOffset=dy).encode(
        x=alt.X("usage:Q", scale=scale, axis=axis, title=None), y=pen.place, color=colour
    )
    tokens = tasks.mark_point(size=80, strokeWidth=2, opacity=1, yOffset=dy, fill=theme.paper).encode(
        x=alt.X("token:Q", scale=scale, axis=axis, title=None), y=pen.place, stroke=colour
    )
    task, group = "datum.kind === 'task'", "datum.kind === 'macro'"
    limit = alt.expr("width - 132") if narrow else 196
    layers = [
        link,
        tokens,
        requests,
        pen.text("name", 0 if narrow else 4, dy=text_dy, limit=limit, only=task),
        pen.text("usage_text", usage_x, align="right", dy=text_dy, weight=600, only=task),
        pen.text("token_text", token_x, align="right", dy=text_dy, colour=theme.muted, only=task),
        *[
            pen.text(field, x, align=align, dy=6, size=14, weight=700, only=group, colour=theme.ink)
            for field, x, align in (("usage_text", usage_x, "right"), ("token_text", token_x, "right"))
        ],
        pen.text("name", 18, dy=6, size=14, weight=700, only=group, limit=limit),
        _layer()
        .transform_filter(group)
        .mark_square(size=110, opacity=1, yOffset=6)
        .encode(x=alt.value(8), y=pen.place, color=colour),
        pen.touch(height, {"name": "Task", "usage_text": "Requests", "token_text": "Tokens", "gap_text": "Difference"}),
    ]
    return _finished(layers, theme, data, params=(), keep="", width=width, height=alt.Step(height))


def model_history(
    theme: Theme, data: Any, labels: Any, series: Sequence[rows.Series], *, narrow: bool, width: Any = "container"
) -> Any:
    """Return the top models' attributed shares by day; a day that is not there breaks the lines."""
    room = 34 if narrow else 230
    words = "datum.place" if narrow else _fitted("label", room - 16, 12, theme)
    keys = [one.key for one in series]
    colour = alt.Color("key:N", scale=alt.Scale(domain=keys, range=[one.colour for one in series]), legend=None)
    dash = alt.StrokeDash("key:N", scale=alt.Scale(domain=keys, range=[list(one.dash) for one in series]), legend=None)
    top = {measure: rows.axis_top(series, measure) for measure in rows.MEASURES}
    highest = alt.expr(f"measure === 'usage' ? {top['usage']} : {top['token']}")
    share_scale = alt.Scale(domainMin=0, domainMax=highest, nice=False)
    share = alt.Y("share:Q", title=None, scale=share_scale, axis=_share_axis())
    x = alt.X("day:T", title=None, scale=_time_scale(room), axis=_day_axis(narrow))
    lines = (
        _layer()
        .mark_line(strokeWidth=2.25, strokeJoin="round", invalid="break-paths-show-domains")
        .encode(x=x, y=share, color=colour, strokeDash=dash)
    )
    alone = _layer().mark_circle(size=36).encode(x=x, y=share, color=colour, opacity=_WHERE_ALONE)
    touch = (
        _layer()
        .transform_lookup("key", from_=alt.LookupData(data=labels, key="key", fields=["name"]))
        .transform_calculate(day_text=_DAY_TEXT)
        .mark_circle(size=140, opacity=0)
        .encode(x=x, y=share, tooltip=_history_tooltips("Model", ".2%"))
    )
    return _finished(
        [lines, alone, *_end_labels(labels, words, theme, room), touch],
        theme,
        data,
        params=_params(measure="usage"),
        keep=_picked("measure"),
        width=width,
        height=300 if narrow else _HISTORY_HEIGHT,
    )


def macro_history(theme: Theme, data: Any, labels: Any, *, narrow: bool, width: Any = "container") -> Any:
    """Return the macro-categories' shares by day, one on another; a day that is not there leaves the ground bare."""
    room = 116 if narrow else 230
    x = alt.X("day:T", title=None, scale=_time_scale(room), axis=_day_axis(narrow))
    low = alt.Y("low:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=_share_axis())
    colour = alt.Color("colour:N", scale=None, legend=None)
    areas = (
        _layer()
        .mark_area(opacity=1, line={"strokeWidth": 0.75, "color": theme.paper})
        .encode(x=x, y=low, y2="high:Q", color=colour, detail=["key:N", "segment:N"])
    )
    alone = _layer().mark_rule(strokeWidth=3).encode(x=x, y=low, y2="high:Q", color=colour, opacity=_WHERE_ALONE)
    touch = (
        _layer()
        .transform_calculate(day_text=_DAY_TEXT)
        .mark_rule(strokeWidth=7, opacity=0)
        .encode(x=x, y=low, y2="high:Q", tooltip=_history_tooltips("Macro-category", ".1%"))
    )
    return _finished(
        [areas, alone, *_end_labels(labels, "datum.label", theme, room), touch],
        theme,
        data,
        params=_params(measure="usage"),
        keep=_picked("measure"),
        width=width,
        height=260 if narrow else 320,
    )


_DAY_TEXT = "utcFormat(datum.day, '%-d %b %Y')"
# A mark that is seen only at a point that has no neighbour to draw to.
_WHERE_ALONE = alt.condition("datum.alone", alt.value(1), alt.value(0))


def _history_tooltips(title: str, digits: str) -> list[Any]:
    return [
        alt.Tooltip("name:N", title=title),
        alt.Tooltip("day_text:N", title="Day"),
        alt.Tooltip("share:Q", title="Share", format=digits),
    ]


def _end_labels(labels: Any, words: str, theme: Theme, room: int) -> list[Any]:
    """Return the names at the right, in ink that can be read, each behind a dot in its colour.

    `words` is an expression of a label's text.
    """
    shown = alt.Chart(labels).transform_filter(_picked("measure"))
    at = alt.Y("label_at:Q", title=None)
    dots = shown.mark_circle(size=50, opacity=1).encode(
        x=alt.value(alt.expr(f"width - {room - 8}")), y=at, color=alt.Color("colour:N", scale=None, legend=None)
    )
    texts = (
        shown.transform_calculate(words=words)
        .mark_text(align="left", baseline="middle", fontSize=12, fontWeight=500, limit=room - 16)
        .encode(x=alt.value(alt.expr(f"width - {room - 16}")), y=at, text="words:N", color=alt.value(theme.ink))
    )
    return [dots, texts]


def _time_scale(room: int) -> Any:
    return alt.Scale(type="utc", range=[0, alt.expr(f"width - {room + 4}")])


def _day_axis(narrow: bool) -> Any:
    words = "utcFormat(datum.value, domain('x')[1] - domain('x')[0] > 2e10 ? '%b %Y' : '%-d %b')"
    return alt.Axis(grid=False, tickCount=3 if narrow else 7, labelExpr=words, labelOverlap=True, labelFlush=True)


def _share_axis() -> Any:
    # The same extent in both charts, so that their days stand below one another.
    return alt.Axis(format="%", tickCount=5, minExtent=38, maxExtent=38)


def movers(theme: Theme, data: Any, *, narrow: bool, width: Any = "container") -> Any:
    """Return the largest changes of attributed share over 7 days as bars to both sides of zero."""
    pen, height = Pen(theme), 52 if narrow else 40
    scale = _from("8", "width - 8") if narrow else _from("330", "width - 200")
    dy = 16 if narrow else 0
    zero = (
        _layer()
        # On a narrow page the names stand above the bars, so the line of zero is as high as a bar.
        .mark_tick(thickness=1, size=14 if narrow else height, yOffset=dy, orient="vertical")
        .encode(x=alt.XDatum(0, scale=scale), y=pen.place, color=alt.value(theme.muted))
    )
    bars = pen.bar("change", scale, size=8 if narrow else 14, dy=dy)
    right, far = alt.expr("width - 2"), alt.expr("width - 110")
    if narrow:
        texts = [
            pen.model(0, dy=-10, room="width - 100"),
            pen.text("moved", right, align="right", dy=-10, weight=600),
        ]
    else:
        texts = [
            pen.model(4, dy=-8, room=300),
            pen.dot(8, dy=9),
            pen.text("author", 17, dy=9, size=12, colour=theme.muted, limit=290),
            pen.text("moved", far, align="right", size=14, weight=600),
            pen.text("now", right, align="right", size=12, colour=theme.muted),
        ]
    tooltips = {"model_id": "Model", "author": "Author", "change_text": "7 days", "now": "Share"}
    layers = [pen.rules(height), zero, bars, *texts, pen.touch(height, tooltips)]
    return _finished(layers, theme, data, params=(), keep="", width=width, height=alt.Step(height))


def task_models(theme: Theme, data: Any, task: str, *, narrow: bool, width: Any = "container") -> Any:
    """Return one task's models by their share of it, and what its list leaves out."""
    pen, height = Pen(theme), 54 if narrow else 38
    scale = _from("30", "width - 4") if narrow else _from("330", "width - 76")
    right = alt.expr("width - 2")
    dy = 14 if narrow else 0
    name_dy = -10 if narrow else -7
    texts = [
        pen.text("position", 20, align="right", dy=name_dy if narrow else 0, size=15, weight=600),
        pen.model(32, dy=name_dy, room="width - 96" if narrow else 296),
        pen.text("share_text", right, align="right", dy=name_dy if narrow else 0, size=14, weight=600),
    ]
    if not narrow:
        texts += [
            pen.dot(36, dy=9, size=50),
            pen.text("author", 45, dy=9, size=12, colour=theme.muted, limit=270),
        ]
    bar = pen.bar("share", scale, size=9 if narrow else 14, dy=dy)
    tooltips = {"model_id": "Model", "author": "Author", "share_text": "Share of the task"}
    layers = [
        pen.rules(height),
        bar.transform_filter("datum.position"),
        pen.bar("share", scale, size=8 if narrow else 13, dy=dy, filled=False).transform_filter("!datum.position"),
        *texts,
        pen.touch(height, tooltips),
    ]
    return _finished(
        layers,
        theme,
        data,
        params=_params(measure="usage", task=task),
        keep=_picked("measure", "task"),
        width=width,
        height=alt.Step(height),
    )


def named_rows(name: str) -> Any:
    """Return a reference to rows that the page gives the chart under a name."""
    return alt.NamedData(name)


def both_widths(draw: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Return a chart's Vega, compiled from its Vega-Lite, for wide and for narrow pages."""
    # Holding each part of the charts against Vega-Lite's schema takes most of a page's time, and the tests do it.
    with debug_mode(VALIDATE):
        return {
            name: vl_convert.vegalite_to_vega(draw(*arguments, narrow=narrow).to_dict())
            for name, narrow in (("wide", False), ("narrow", True))
        }


def render_picture(data: ReportData) -> bytes:
    """Return the day's top 20 as a PNG, about 1,400 pixels wide, dark on white."""
    found = [row for row in rows.leaderboard_rows(data, PICTURE) if (row["scope"], row["measure"]) == ("all", "usage")]
    chart = leaderboard(
        PICTURE, alt.InlineData(found), narrow=False, width=_PICTURE_WIDTH, name_room=_PICTURE_NAME_ROOM
    )
    cited = (
        alt.Chart(alt.InlineData([{"text": plain(data.snapshot["citation"])}]))
        .mark_text(align="left", baseline="top", fontSize=11, limit=_PICTURE_WIDTH)
        .encode(x=alt.value(0), y=alt.value(alt.expr("height + 16")), text="text:N", color=alt.value(PICTURE.muted))
    )
    demo = ["DEMO, made-up data"] if data.is_demo else []
    whose = "Made-up" if data.is_demo else "OpenRouter's classified"
    title = alt.TitleParams(
        [*demo, f"Top {count_text(len(found), 'model')} by share of requests, {day_text(data.as_of)}"],
        subtitle=[
            f"{whose} requests of the {count_text(data.snapshot['window_days'], 'day')} to that day.",
            "Bar: what the published task lists attribute to the model. Whisker: the most that it can have.",
        ],
        anchor="start",
        color=PICTURE.ink,
        fontSize=22,
        offset=26,
        subtitleColor=PICTURE.muted,
        subtitleFontSize=13,
        subtitlePadding=8,
    )
    layers = alt.layer(*chart.layer, cited, data=chart.data)
    chart.layer = layers.layer
    spec = chart.properties(title=title, padding=24, background="#ffffff").to_dict()
    return vl_convert.vegalite_to_png(spec, scale=2)
