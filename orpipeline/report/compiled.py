"""Charts compiled from Vega-Lite to Vega, which the page draws, and to pictures.

The page's charts are the same on every day: their rows and the reader's choices are data. So their Vega is stored in
`vega/charts.json`. After a change to a chart, write it anew; a test compares it:

    python -m orpipeline.report.compiled > orpipeline/report/vega/charts.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orpipeline.report.charts import history, mix, movers, ranking
from orpipeline.report.charts.parts import Spec
from orpipeline.report.colours import PAGE

_VEGA_LITE = "6.4"
_FILE = Path(__file__).parent / "vega" / "charts.json"


def page_specs() -> Mapping[str, Mapping[str, Spec]]:
    """Return the page's charts as Vega-Lite, by name and form (`wide`, `narrow`)."""
    both = {
        "models": ranking.models,
        "task_models": ranking.task,
        "stack": history.stack,
        "lines": history.lines,
        "movers": movers.movers,
        "mix": mix.mix,
    }
    specs = {name: {"wide": draw(PAGE, narrow=False), "narrow": draw(PAGE, narrow=True)} for name, draw in both.items()}
    return {
        **specs,
        "authors": {"narrow": ranking.authors(PAGE)},
        "task_authors": {"narrow": ranking.task_authors(PAGE)},
    }


def page_charts() -> dict[str, Any]:
    """Return the page's charts as Vega, by name and form, from the stored file."""
    charts: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return charts


def compile_page_charts() -> dict[str, Any]:
    """Return what `page_charts` must return: the page's charts, compiled now."""
    import vl_convert  # starts a JavaScript engine, which the page does not need

    return {
        name: {form: vl_convert.vegalite_to_vega(spec, vl_version=_VEGA_LITE) for form, spec in forms.items()}
        for name, forms in page_specs().items()
    }


def to_png(spec: Spec, *, scale: float) -> bytes:
    """Return a Vega-Lite specification as a PNG, `scale` times as large in pixels as it states."""
    import vl_convert

    png: bytes = vl_convert.vegalite_to_png(spec, vl_version=_VEGA_LITE, scale=scale)
    return png


if __name__ == "__main__":
    print(json.dumps(compile_page_charts(), separators=(",", ":")))
