"""How the figures are cited."""

from __future__ import annotations

from datetime import date

LICENSE = "Licensed under CC BY 4.0."


def citation(as_of: date, origin: str) -> str:
    """Return how to cite a day's figures where they are passed on, as OpenRouter's data guide asks for it.

    Made-up figures (`origin` is `demo`) are nobody's, and the text says so.
    """
    if origin == "demo":
        return f"Demo data, made up by orpipeline, as of {as_of}. Not from OpenRouter."
    return f"Source: OpenRouter (openrouter.ai/rankings), as of {as_of}. {LICENSE}"
