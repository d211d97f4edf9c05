"""Made-up answers of the API: real shape and rounding, invented models and figures.

A date always gives the same bytes. Figures drift from day to day; models appear, rise for a week or two, and fade
when their successors appear. No figure was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from hashlib import blake2b
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

WINDOW_DAYS = 7
_LISTED_MODELS = 10
_EPOCH = date(2025, 1, 1)

# The API's own tags, with invented weights of their requests and of tokens for each request.
_TAGS: tuple[tuple[str, str, float, float], ...] = (
    ("classification_tagging", "Classification", 24.0, 0.3),
    ("roleplay_fiction", "Roleplay & Fiction", 8.0, 0.6),
    ("content_writing", "Content Writing", 6.5, 0.6),
    ("qa_knowledge", "Q&A & Knowledge", 4.0, 0.8),
    ("translation", "Translation", 3.4, 0.2),
    ("conversational_reply", "Conversation", 3.0, 1.0),
    ("summarization", "Summarization", 2.6, 0.7),
    ("customer_support", "Customer Support", 1.9, 0.7),
    ("research_report", "Research & Reports", 0.9, 1.8),
    ("finance_trading", "Finance & Trading", 0.7, 1.0),
    ("security_audit", "Security Audit", 0.6, 2.2),
    ("math", "Math", 0.5, 0.6),
    ("devops", "DevOps", 0.3, 2.5),
    ("data:extraction", "Data Extraction", 11.0, 0.4),
    ("data:transformation", "Data Transformation", 4.2, 0.5),
    ("agent:workflow_execution", "Workflow Execution", 8.2, 2.4),
    ("agent:multi_step_planning", "Multi-step Planning", 3.6, 2.3),
    ("agent:tool_dispatch", "Tool Dispatch", 1.2, 1.5),
    ("agent:memory_extraction", "Memory Extraction", 0.9, 1.4),
    ("agent:web_search", "Web Search", 0.8, 1.6),
    ("code:general_impl", "Code Generation", 4.1, 3.0),
    ("code:debugging", "Debugging", 2.4, 3.1),
    ("code:file_read_write", "File I/O", 1.8, 3.0),
    ("code:review_security", "Code Review", 1.3, 2.3),
    ("code:shell_execution", "Shell Execution", 1.1, 2.7),
    ("code:frontend_ui", "Frontend & UI", 0.9, 3.6),
    ("code:repo_scan", "Repo Scanning", 0.5, 3.5),
    ("code:devops_config", "DevOps & Config", 0.4, 3.0),
    ("code:sql_database", "SQL & Database", 0.3, 2.4),
)
_MACROS = {"code": "Code", "data": "Data", "agent": "Agent", "general": "General"}

# Invented families of models: author, name, weight, days between releases, variant.
_FAMILIES: tuple[tuple[str, str, float, int, str], ...] = (
    ("demo-aurora", "borealis", 10.0, 80, ""),
    ("demo-aurora", "borealis-mini", 7.0, 65, ""),
    ("demo-basalt", "columns", 8.0, 95, ""),
    ("demo-basalt", "columns-flash", 9.0, 50, ""),
    ("demo-cinder", "ember", 6.0, 70, ""),
    ("demo-cinder", "ember-lite", 5.0, 60, ":free"),
    ("demo-dune", "mirage", 5.0, 85, ""),
    ("demo-estuary", "heron", 4.0, 75, ""),
    ("demo-estuary", "heron-large", 3.0, 110, ""),
    ("demo-fjord", "skerry", 4.0, 90, ""),
    ("demo-glade", "lichen", 2.5, 120, ""),
    ("demo-harbor", "lantern", 2.0, 100, ":free"),
    ("demo-islet", "tern", 1.5, 130, ""),
    ("demo-juniper", "resin", 1.0, 140, ""),
)


@dataclass(frozen=True)
class _Model:
    model_id: str
    family: int
    released: date


def demo_answer(as_of: date) -> bytes:
    """Return a made-up answer of `GET /classifications/task` for the window that ends with `as_of`."""
    return json.dumps({"data": _data(as_of)}, separators=(",", ":")).encode()


def _data(as_of: date) -> dict[str, object]:
    usage = _fractions({tag: weight * _drift(f"usage {tag}", as_of, 0.15) for tag, _, weight, _ in _TAGS})
    tokens = _fractions({tag: usage[tag] * length * _drift(f"tokens {tag}", as_of, 0.1) for tag, _, _, length in _TAGS})
    macro_usage, macro_tokens = _by_macro(usage), _by_macro(tokens)
    models = _popularity(as_of)
    tags = [
        {
            "tag": tag,
            "display_name": name,
            "macro_category": _macro(tag),
            "usage_share": _published(usage[tag]),
            "token_share": _published(tokens[tag]),
            "category_usage_share": _published(usage[tag] / macro_usage[_macro(tag)]),
            "category_token_share": _published(tokens[tag] / macro_tokens[_macro(tag)]),
            "models": _listed_models(tag, models, as_of),
        }
        for tag, name, _, _ in sorted(_TAGS, key=lambda entry: -usage[entry[0]])
    ]
    macros = [
        {
            "key": key,
            "label": label,
            "usage_share": _published(macro_usage[key]),
            "token_share": _published(macro_tokens[key]),
        }
        for key, label in _MACROS.items()
    ]
    return {
        "window_days": WINDOW_DAYS,
        "as_of": as_of.isoformat(),
        "classifications": tags,
        "macro_categories": macros,
    }


def _listed_models(tag: str, models: Mapping[_Model, float], as_of: date) -> list[dict[str, object]]:
    """Return the top models by requests. As in a real answer, the other models are left out."""
    usage = _fractions(
        {
            model: popularity * _taste(tag, model.family) * _drift(f"{tag} {model.model_id}", as_of, 0.12)
            for model, popularity in models.items()
        }
    )
    tokens = _fractions({model: share * _wordiness(model.model_id) for model, share in usage.items()})
    top = sorted(usage, key=lambda model: (-usage[model], model.model_id))[:_LISTED_MODELS]
    return [
        {
            "id": model.model_id,
            "tag_usage_share": _published(usage[model]),
            "tag_token_share": _published(tokens[model]),
        }
        for model in top
    ]


def _popularity(as_of: date) -> dict[_Model, float]:
    """Return every model released by `as_of`, with a weight that falls with its age."""
    found: dict[_Model, float] = {}
    for family, (author, name, weight, period, variant) in enumerate(_FAMILIES):
        first = _EPOCH + timedelta(days=int(_chance(name) * period))
        for version in range(1, 1 + (as_of - first).days // period + 1):
            released = first + timedelta(days=(version - 1) * period)
            age = (as_of - released).days
            left = weight * min(1.0, (age + 1) / 12) * math.exp(-age / 60) if age >= 0 else 0.0
            if left > weight / 200:
                model_id = f"{author}/{name}-{version}-{released:%Y%m%d}{variant}"
                found[_Model(model_id, family, released)] = left
    return found


@cache
def _taste(tag: str, family: int) -> float:
    """Return a task's preference for a family of models: 1 is neutral."""
    return math.exp(1.6 * (_chance(f"{tag} {family}") - 0.5) + 0.8 * (_chance(f"{family} {tag}") - 0.5))


@cache
def _wordiness(model_id: str) -> float:
    """Return a model's tokens for each request, relative to other models."""
    return math.exp(1.6 * (_chance(model_id) - 0.5))


def _drift(name: str, as_of: date, size: float) -> float:
    """Return a slow wave around 1 with daily noise, always the same for a name and day."""
    period, phase = 40 + 120 * _chance(name), _chance(f"phase {name}")
    wave = math.sin(2 * math.pi * (as_of.toordinal() / period + phase))
    tremor = size / 4 * (_chance(f"{name} {as_of}") - 0.5)
    return max(0.05, 1 + size * wave + tremor)


def _chance(text: str) -> float:
    """Return a pseudorandom number from 0 to 1, always the same for a text, on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def _macro(tag: str) -> str:
    prefix = tag.split(":")[0]
    return prefix if ":" in tag else "general"


def _by_macro(shares: Mapping[str, float]) -> dict[str, float]:
    return {key: sum(share for tag, share in shares.items() if _macro(tag) == key) for key in _MACROS}


def _fractions(weights: Mapping[Key, float]) -> dict[Key, float]:
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items()}


def _published(share: float) -> float:
    return round(share, 3)
