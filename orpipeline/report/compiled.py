"""Charts compiled from Vega-Lite to Vega, which the page draws, and to pictures."""

from __future__ import annotations

from typing import Any

import vl_convert

_VEGA_LITE = "6.4"


def to_vega(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a Vega-Lite specification as Vega."""
    vega: dict[str, Any] = vl_convert.vegalite_to_vega(spec, vl_version=_VEGA_LITE)
    return vega


def to_png(spec: dict[str, Any], *, scale: float) -> bytes:
    """Return a Vega-Lite specification as a PNG, `scale` times as large in pixels as it states."""
    png: bytes = vl_convert.vegalite_to_png(spec, vl_version=_VEGA_LITE, scale=scale)
    return png
