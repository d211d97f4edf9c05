"""Charts compiled from Vega-Lite to Vega, which the page draws."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import vl_convert
from altair.utils.schemapi import debug_mode

from orpipeline.report.charts.drawing import named_rows
from orpipeline.report.colours import Theme


@lru_cache(maxsize=16)  # most charts are the same for every day
def both_widths(draw: Callable[..., Any], theme: Theme, sources: tuple[str, ...], *options: Hashable) -> dict[str, Any]:
    """Return the Vega of a chart's `wide` and `narrow` form. Do not change it: equal arguments get the same object.

    `sources` are the names of the rows that the page has for the chart, `options` its further arguments.
    """
    arguments = (theme, *map(named_rows, sources), *options)
    # Validation against Vega-Lite's schema would take most of a page's time. A test validates every chart instead.
    with debug_mode(False):
        return {
            form: vl_convert.vegalite_to_vega(draw(*arguments, narrow=narrow).to_dict(validate=False))
            for form, narrow in (("wide", False), ("narrow", True))
        }
