"""The parts that all charts share: text, bars and lines in the theme's colours, scales, and the frame of a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from orpipeline.report.colours import Theme

_WIDTH = alt.expr("width")


def layer() -> Any:
    """Return an empty layer, which draws its chart's rows."""
    return alt.Chart(alt.Undefined)


def colour_of_row() -> Any:
    """Return the colour channel for rows that have their colour in the column `colour`."""
    return alt.Color("colour:N", scale=None, legend=None)


@dataclass(frozen=True)
class Pen:
    """Draws text and marks in the theme's colours, each row of the data at its `place`.

    Every `dy` moves a mark down, in pixels. `x`, `limit` and `room` are pixels or expressions of the chart's `width`.
    """

    theme: Theme

    @property
    def place(self) -> Any:
        """The vertical position of a row: 1 is at the top."""
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
        """Return the text of `field` for each row that meets the expression `only`, cut off after `limit`."""
        mark: dict[str, Any] = {"align": align, "dy": dy, "fontSize": size, "fontWeight": weight, "baseline": "middle"}
        if limit is not None:
            mark["limit"] = limit
        chart = layer().mark_text(**mark)
        chart = chart.transform_filter(only) if only else chart
        return chart.encode(
            x=alt.value(x), y=self.place, text=alt.Text(f"{field}:N"), color=alt.value(colour or self.theme.ink)
        )

    def model(self, x: Any, *, room: Any, dy: float) -> Any:
        """Return each row's model name, shortened in the middle to fit `room`."""
        text = self.text("fitted", x, dy=dy, size=14, weight=600, limit=alt.expr(f"{room}"))
        return text.transform_calculate(fitted=fitted("name", room, 14, self.theme))

    def bar(self, field: str, scale: Any, *, size: int, dy: float = 0, axis: Any = None, filled: bool = True) -> Any:
        """Return a bar for each row, from zero to `field`."""
        return (
            layer()
            .mark_bar(size=size, yOffset=dy, cornerRadiusEnd=2, filled=filled)
            .encode(
                x=alt.X(f"{field}:Q", scale=scale, axis=axis, title=None),
                y=self.place,
                color=colour_of_row(),
            )
        )

    def whisker(self, start: str, end: str, scale: Any, *, dy: float = 0, tick: int = 9) -> Any:
        """Return a thin line for each row, from the field `start` to the field `end`, with a tick at its end."""
        x = alt.X(f"{start}:Q", scale=scale, axis=None, title=None)
        line = (
            layer()
            .mark_rule(strokeWidth=1.25, yOffset=dy, y2Offset=dy)
            .encode(x=x, x2=f"{end}:Q", y=self.place, color=alt.value(self.theme.muted))
        )
        stop = (
            layer()
            .mark_tick(thickness=1.5, size=tick, yOffset=dy, orient="vertical")
            .encode(
                x=alt.X(f"{end}:Q", scale=scale, axis=None, title=None),
                y=self.place,
                color=alt.value(self.theme.muted),
            )
        )
        return line + stop

    def dot(self, x: float, *, dy: float = 0, size: int = 60) -> Any:
        """Return a dot for each row, to draw before the author's name."""
        return (
            layer()
            .mark_circle(size=size, yOffset=dy, opacity=1)
            .encode(x=alt.value(x), y=self.place, color=colour_of_row())
        )

    def touch(self, height: int, tooltips: Mapping[str, str]) -> Any:
        """Return an invisible box over each row. Its tooltip shows the columns of `tooltips` under their titles."""
        return (
            layer()
            .mark_rect(opacity=0, height=height)
            .encode(
                x=alt.value(0),
                x2=alt.value(_WIDTH),
                y=self.place,
                tooltip=[alt.Tooltip(f"{field}:N", title=title) for field, title in tooltips.items()],
            )
        )

    def rules(self, height: int) -> Any:
        """Return a thin line below each row."""
        half = height / 2
        return (
            layer()
            .mark_rule(strokeWidth=1, yOffset=half, y2Offset=half)
            .encode(x=alt.value(0), x2=alt.value(_WIDTH), y=self.place, color=alt.value(self.theme.line))
        )


def fitted(field: str, room: Any, size: int, theme: Theme) -> str:
    """Return an expression for the text of `field`, shortened in the middle to fit `room` at a font size.

    Names of one model family differ at their end, which Vega's own `limit` would cut off. This function estimates the
    width of a character; Vega knows it, so use `limit` as well, in case the estimate is too small.
    """
    length = f"floor(({room}) / {theme.character * size:g}) - 1"
    first, last = f"slice(datum.{field}, 0, ceil(({length}) / 2))", f"slice(datum.{field}, -floor(({length}) / 2))"
    return f"length(datum.{field}) <= {length} + 1 ? datum.{field} : {first} + '…' + {last}"


def scale_between(start: str, end: str, **options: Any) -> Any:
    """Return a scale with zero that reaches from pixel `start` to pixel `end` (expressions of `width`)."""
    return alt.Scale(range=[alt.expr(start), alt.expr(end)], zero=True, nice=False, **options)


def chosen(*names: str) -> str:
    """Return an expression that is true for the rows of the reader's choice, for parameters named like columns."""
    return " && ".join(f"datum.{name} === {name}" for name in names)


def params(**values: str) -> list[Any]:
    """Return parameters with their initial values."""
    return [alt.param(name=name, value=value) for name, value in values.items()]


def finished(
    layers: Sequence[Any], theme: Theme, data: Any, *, params: Sequence[Any], only: str = "", width: Any, height: Any
) -> Any:
    """Return the layers as one chart in the theme's style, of the rows that meet the expression `only`."""
    chart = alt.layer(*layers, data=data).properties(
        width=width, height=height, autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    )
    if only:
        chart = chart.transform_filter(only)
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


def named_rows(name: str) -> Any:
    """Return a reference to the rows that the page has under this name."""
    return alt.NamedData(name)
