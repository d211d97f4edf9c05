"""The made-up market behind the sample responses: invented tasks' weights, models, and how both change over time.

A date always has the same figures, on every machine. No figure was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache
from hashlib import blake2b

_LISTED_MODELS = 10
_EPOCH = date(2023, 1, 1)  # first versions
_TAKEOVER_DAYS = 20  # from a release until half of the requests have moved to it
_HYPE_DAYS = 42

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
DISPLAY_NAMES = {tag: name for tag, name, _, _ in _TAGS}
"""The API's name of each of its tags."""

# Invented models: weight of requests, tokens for each request, days between versions (0: no versions), how far the
# weight rises and falls over months, how much tasks differ in their preference. A `:free` one peaks for some weeks.
_MODELS: tuple[tuple[str, float, float, int, float, float], ...] = (
    ("demo-aurora/borealis", 9.6, 0.6, 330, 0.08, 0.8),
    ("demo-basalt/columns-flash", 10.4, 1.3, 390, 0.08, 0.8),
    ("demo-cinder/ember-lite", 9.4, 0.25, 0, 0.12, 0.8),
    ("demo-aurora/borealis-mini", 7.2, 0.8, 250, 0.15, 1.0),
    ("demo-dune/mirage", 5.6, 1.9, 280, 0.5, 1.0),
    ("demo-estuary/heron", 4.0, 1.2, 310, 0.5, 1.0),
    ("demo-fjord/skerry", 3.6, 1.4, 240, 0.5, 1.0),
    ("demo-glade/firefly-alpha:free", 15.0, 2.2, 400, 0.0, 1.0),
    ("demo-harbor/beacon-preview:free", 8.5, 1.6, 370, 0.0, 1.5),
    ("demo-basalt/columns", 2.2, 1.5, 300, 0.2, 1.5),
    ("demo-cinder/ember", 1.8, 1.1, 350, 0.2, 1.5),
    ("demo-islet/tern", 1.5, 0.9, 300, 0.25, 2.0),
    ("demo-harbor/lantern", 1.2, 0.7, 360, 0.25, 2.0),
    *(
        (f"demo-{name}", 0.27, tokens, renewal, 0.25, 4.5)
        for kind, tokens, renewal in (("mini", 0.5, 310), ("code", 2.4, 280), ("chat", 0.8, 0))
        for name in (
            *(f"basalt/columns-{kind}", f"cinder/ember-{kind}", f"dune/mirage-{kind}", f"estuary/heron-{kind}"),
            *(f"fjord/skerry-{kind}", f"juniper/resin-{kind}", f"kelp/frond-{kind}", f"lagoon/atoll-{kind}"),
            *(f"meadow/clover-{kind}", f"nimbus/cirrus-{kind}"),
        )
    ),
)


def traffic(as_of: date) -> tuple[dict[str, float], dict[str, float]]:
    """Return each tag's share of all requests and of all tokens on a day, not rounded."""
    usage = _fractions({tag: weight * _drift(f"usage {tag}", as_of, 0.15) for tag, _, weight, _ in _TAGS})
    tokens = _fractions({tag: usage[tag] * length * _drift(f"tokens {tag}", as_of, 0.1) for tag, _, _, length in _TAGS})
    return usage, tokens


def listed_models(tag: str, as_of: date) -> dict[str, tuple[float, float]]:
    """Return a tag's top models by requests on a day, with their shares of its requests and tokens, not rounded.

    As in a real response, the other models are left out.
    """
    usage: dict[str, float] = {}
    tokens: dict[str, float] = {}
    for name, weight, verbosity, renewal, swing, focus in _MODELS:
        requests = weight * _taste(tag, name, focus) * _drift(f"{tag} {name}", as_of, 0.1) * _drift(name, as_of, swing)
        for model_id, share in _versions(name, renewal, as_of).items():
            usage[model_id] = requests * share
            tokens[model_id] = requests * share * verbosity
    # The many models too small to have a name here.
    rest = sum(usage.values()) * (0.05 + 0.65 * _chance(f"rest {tag}") ** 2)
    all_usage = sum(usage.values()) + rest
    all_tokens = sum(tokens.values()) + rest * 0.5 * _chance(f"tokens of the rest {tag}")
    top = sorted(usage, key=lambda model_id: (-usage[model_id], model_id))[:_LISTED_MODELS]
    return {model_id: (usage[model_id] / all_usage, tokens[model_id] / all_tokens) for model_id in top}


@cache
def _versions(name: str, renewal: int, as_of: date) -> Mapping[str, float]:
    """Return a model's versions in use on a day, with their shares of its requests."""
    if not renewal:
        return {name: 1.0}
    base, _, variant = name.partition(":")
    age = (as_of - _EPOCH).days - int(renewal * _chance(name))
    found = {}
    for number in (age // renewal - 1, age // renewal):
        days = age - number * renewal
        if variant:
            share = _moved(days, 12) * (1 - _moved(days, 12 + _HYPE_DAYS))
        else:
            share = _moved(days, _TAKEOVER_DAYS) * (1 - _moved(days - renewal, _TAKEOVER_DAYS))
        released = as_of - timedelta(days=days)
        if share > 0.01:
            found[f"{base}-{number + 1}-{released:%Y%m%d}{':' + variant if variant else ''}"] = share
    return found


def _moved(age: int, half: int) -> float:
    """Return the fraction of requests that has moved to a model of this age in days; half of them at the age `half`."""
    return 1 / (1 + math.exp((half - age) / (half / 4.5))) if age >= 0 else 0.0


def _drift(name: str, as_of: date, size: float) -> float:
    """Return the value of two slow waves around 1 for a name and day."""
    slow, slow_phase, fast, fast_phase = _waves(name)
    day = as_of.toordinal()
    return 1 + size * (math.sin(day * slow + slow_phase) + 0.4 * math.sin(day * fast + fast_phase))


@cache
def _waves(name: str) -> tuple[float, float, float, float]:
    """Return angular frequency (1/day) and phase of a wave of 90 to 250 days, then of one of 20 to 45 days."""
    turn = 2 * math.pi
    slow, fast = (turn / (90 + 160 * _chance(f"slow {name}")), turn / (20 + 25 * _chance(f"fast {name}")))
    return slow, turn * _chance(f"slow phase {name}"), fast, turn * _chance(f"fast phase {name}")


@cache
def _taste(tag: str, name: str, focus: float) -> float:
    """Return a task's preference for a model: 1 is neutral."""
    return math.exp(focus * (_chance(f"{tag} {name}") + _chance(f"{name} {tag}") - 1))


def _chance(text: str) -> float:
    """Return a pseudorandom number from 0 to 1, always the same for a text, on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def _fractions(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items()}
