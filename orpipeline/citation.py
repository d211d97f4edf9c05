"""How to cite the figures."""

from __future__ import annotations

from datetime import date

LICENSE = "Licensed under CC BY 4.0."


def citation(as_of: date, origin: str) -> str:
    """Return the citation of a day's figures that OpenRouter's data guide requires when you publish them.

    For made-up figures (`origin` is `demo`) the text names no source but the demo.
    """
    if origin == "demo":
        return f"Demo data, made up by orpipeline, as of {as_of}. Not from OpenRouter."
    return f"Source: OpenRouter (openrouter.ai/rankings), as of {as_of}. {LICENSE}"
