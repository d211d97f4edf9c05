"""The made-up market behind the sample responses: invented tasks' weights, models, and how both change over time.

Over a year, incumbents stay among the first and their successors take over within weeks, challengers rise over months,
and free models peak for some weeks. A date always has the same figures, on every machine. No figure was measured.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from hashlib import blake2b
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

_LISTED_MODELS = 10
_FIRST_VERSIONS = date(2023, 1, 1)

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


@dataclass(frozen=True, eq=False)
class _Family:
    """An invented line of models: a model without versions, or one version after the other."""

    author: str
    name: str
    requests: float
    """Relative weight of its requests."""
    verbosity: float
    """Tokens for each request, relative to other models."""
    renewal: int = 0
    """Days between versions; 0 if the model has no versions."""
    release: date = date(2026, 1, 1)
    """The day of one of its releases; the others follow from `renewal`."""
    swing: float = 0.12
    """How far its popularity rises and falls: the logarithm of the largest factor."""
    cycle: int = 300
    """Days between peaks of its popularity."""
    peak: date = date(2026, 6, 1)
    """The day of one of these peaks."""
    focus: float = 4.5
    """How much tasks differ in their preference for it: the logarithm of the largest factor."""
    hype: bool = False
    """Whether each version is popular for a few weeks only."""
    variant: str = ""


_FAMILIES = (
    # Incumbents: among the first all year. A successor takes over within weeks.
    _Family("demo-aurora", "borealis", 9.6, 0.6, 330, date(2026, 3, 10), swing=0.12, cycle=240, focus=0.8),
    _Family("demo-basalt", "columns-flash", 10.4, 1.3, 390, date(2026, 7, 6), swing=0.12, cycle=310, focus=0.8),
    _Family("demo-cinder", "ember-lite", 9.4, 0.25, swing=0.22, cycle=420, peak=date(2025, 12, 20), focus=0.8),
    # Challengers: they rise and fall over many months.
    _Family(
        "demo-dune",
        "mirage",
        5.6,
        1.9,
        280,
        date(2026, 5, 18),
        swing=0.9,
        cycle=800,
        peak=date(2026, 12, 10),
        focus=1.0,
    ),
    _Family(
        "demo-estuary",
        "heron",
        4.0,
        1.2,
        310,
        date(2026, 8, 25),
        swing=0.9,
        cycle=700,
        peak=date(2026, 9, 15),
        focus=1.0,
    ),
    _Family(
        "demo-fjord",
        "skerry",
        3.6,
        1.4,
        240,
        date(2026, 1, 27),
        swing=1.0,
        cycle=760,
        peak=date(2025, 11, 20),
        focus=1.0,
    ),
    _Family(
        "demo-aurora",
        "borealis-mini",
        7.2,
        0.8,
        250,
        date(2026, 6, 9),
        swing=0.25,
        cycle=520,
        peak=date(2026, 8, 1),
        focus=1.0,
    ),
    # Hypes: free for some weeks.
    _Family("demo-glade", "firefly-alpha", 15.0, 2.2, 400, date(2026, 4, 20), focus=1.0, hype=True, variant=":free"),
    _Family("demo-harbor", "beacon-preview", 8.5, 1.6, 400, date(2026, 9, 28), focus=1.5, hype=True, variant=":free"),
    # The middle.
    _Family("demo-basalt", "columns", 2.2, 1.5, 300, date(2026, 4, 14), swing=0.3, cycle=420, focus=1.5),
    _Family("demo-cinder", "ember", 1.8, 1.1, 350, date(2026, 5, 5), swing=0.3, cycle=380, focus=1.5),
    _Family("demo-aurora", "borealis-large", 1.4, 1.7, 330, date(2026, 3, 10), swing=0.3, focus=2.0),
    _Family("demo-islet", "tern", 1.5, 0.9, 300, date(2026, 7, 21), swing=0.4, cycle=480, focus=2.0),
    _Family("demo-harbor", "lantern", 1.2, 0.7, 360, date(2026, 2, 3), swing=0.4, focus=2.0, variant=":free"),
    # The long tail: each is popular for a few tasks.
    _Family("demo-aurora", "borealis-frontend", 0.24, 2.8, 330, date(2026, 3, 10)),
    _Family("demo-basalt", "columns-code", 0.32, 2.6, 270, date(2026, 2, 17)),
    _Family("demo-cinder", "ember-vision", 0.26, 0.4, swing=0.4),
    _Family("demo-cinder", "ember-audit", 0.26, 1.8, 330, date(2026, 7, 14)),
    _Family("demo-dune", "mirage-small", 0.30, 0.9, 280, date(2026, 5, 18), swing=0.4, peak=date(2026, 11, 1)),
    _Family("demo-dune", "mirage-search", 0.26, 1.5, 410, date(2026, 1, 13)),
    _Family("demo-estuary", "heron-large", 0.30, 1.6, 310, date(2026, 8, 25)),
    _Family("demo-estuary", "heron-nano", 0.28, 0.2, swing=0.4, cycle=500),
    _Family("demo-fjord", "skerry-lite", 0.30, 0.5, 240, date(2026, 1, 27), swing=0.4),
    _Family("demo-fjord", "skerry-math", 0.24, 1.3, 320, date(2026, 6, 23)),
    _Family("demo-fjord", "skerry-shell", 0.24, 2.0),
    _Family("demo-glade", "lichen", 0.32, 0.8, 420, date(2026, 6, 30)),
    _Family("demo-glade", "lichen-chat", 0.26, 0.6, 420, date(2026, 6, 30)),
    _Family("demo-harbor", "lantern-pro", 0.26, 1.9, 360, date(2026, 2, 3)),
    _Family("demo-islet", "tern-legal", 0.22, 1.4, 290, date(2026, 3, 3)),
    _Family("demo-islet", "tern-mini", 0.26, 0.4, swing=0.4),
    _Family("demo-juniper", "resin", 0.34, 0.6, cycle=600),
    _Family("demo-juniper", "resin-instruct", 0.26, 0.8, 340, date(2026, 9, 8)),
    _Family("demo-juniper", "resin-sql", 0.22, 2.0, 370, date(2026, 5, 12)),
    _Family("demo-kelp", "frond", 0.30, 1.2, 380, date(2026, 3, 24), swing=0.4),
    _Family("demo-kelp", "frond-agent", 0.26, 2.2, 380, date(2026, 6, 16), swing=0.4),
    _Family("demo-lagoon", "atoll", 0.28, 1.0, swing=0.4, cycle=540),
    _Family("demo-lagoon", "atoll-finance", 0.22, 1.1, 400, date(2026, 4, 7)),
    _Family("demo-lagoon", "atoll-mini", 0.24, 0.5, 310, date(2026, 5, 26)),
    _Family("demo-meadow", "clover", 0.28, 0.7, 320, date(2026, 8, 4), swing=0.4, variant=":free"),
    _Family("demo-meadow", "clover-voice", 0.22, 0.5, 350, date(2026, 1, 6)),
    _Family("demo-meadow", "clover-poet", 0.22, 0.9),
    _Family("demo-nimbus", "cirrus", 0.26, 1.4, 290, date(2026, 4, 28), swing=0.4),
    _Family("demo-nimbus", "cirrus-lite", 0.26, 0.6),
)
_TAKEOVER_DAYS = 20  # from a release until half of the requests have moved to it
_HYPE_DAYS = 42  # from the rise of a hype to its fall
_NEGLIGIBLE = 0.01  # of a family's requests: a version with less is no longer in use


@dataclass(frozen=True)
class _Model:
    model_id: str
    family: _Family
    requests: float


def traffic(as_of: date) -> tuple[dict[str, float], dict[str, float]]:
    """Return each tag's share of all requests and of all tokens on a day, not rounded."""
    usage = _fractions({tag: weight * _drift(f"usage {tag}", as_of, 0.15) for tag, _, weight, _ in _TAGS})
    tokens = _fractions({tag: usage[tag] * length * _drift(f"tokens {tag}", as_of, 0.1) for tag, _, _, length in _TAGS})
    return usage, tokens


@dataclass(frozen=True)
class Market:
    """The models in use on a day."""

    as_of: date
    models: Sequence[_Model]

    @classmethod
    def of(cls, as_of: date) -> Market:
        """Return the market of a day."""
        return cls(as_of, _models(as_of))

    def listed(self, tag: str) -> dict[str, tuple[float, float]]:
        """Return the top models of a tag by requests, with their shares of its requests and tokens, not rounded.

        As in a real response, the other models are left out.
        """
        appeal = {family: _taste(tag, family) * _drift(f"{tag} {family.name}", self.as_of, 0.1) for family in _FAMILIES}
        usage = [model.requests * appeal[model.family] for model in self.models]
        tokens = [share * model.family.verbosity for share, model in zip(usage, self.models, strict=True)]
        all_usage, all_tokens = _with_the_rest(tag, usage, tokens)
        top = sorted(range(len(usage)), key=lambda n: (-usage[n], self.models[n].model_id))[:_LISTED_MODELS]
        return {self.models[n].model_id: (usage[n] / all_usage, tokens[n] / all_tokens) for n in top}


def _with_the_rest(tag: str, usage: Sequence[float], tokens: Sequence[float]) -> tuple[float, float]:
    """Return a tag's requests and tokens, with those of the many models too small to have a name here."""
    rest = sum(usage) * (0.05 + 0.65 * _chance(f"rest {tag}") ** 2)
    return sum(usage) + rest, sum(tokens) + rest * 0.5 * _chance(f"tokens of the rest {tag}")


def _models(as_of: date) -> list[_Model]:
    """Return the models in use on a day."""
    return [
        _Model(model_id, family, requests)
        for family in _FAMILIES
        for model_id, requests in _versions(family, as_of)
        if requests > _NEGLIGIBLE * family.requests
    ]


def _versions(family: _Family, as_of: date) -> Iterator[tuple[str, float]]:
    """Yield a family's models with the weight of their requests."""
    days = (as_of - family.peak).days
    popular = family.requests * math.exp(family.swing * math.cos(2 * math.pi * days / family.cycle))
    prefix = f"{family.author}/{family.name}"
    if not family.renewal:
        yield f"{prefix}{family.variant}", popular
        return
    newest = (as_of - family.release).days // family.renewal
    for number in range(newest - 2, newest + 1):
        released = family.release + timedelta(days=number * family.renewal)
        age = (as_of - released).days
        if family.hype:
            share = _moved(age, 12) * (1 - _moved(age, 12 + _HYPE_DAYS))
        else:
            next_age = age - family.renewal
            share = _moved(age, _TAKEOVER_DAYS) * (1 - _moved(next_age, _TAKEOVER_DAYS))
            share += 0.2 * _moved(next_age, _TAKEOVER_DAYS) * math.exp(-max(0, next_age) / 150)
        version = (released - _FIRST_VERSIONS).days // family.renewal + 1
        if version > 0:
            yield f"{prefix}-{version}-{released:%Y%m%d}{family.variant}", popular * share


def _moved(age: int, half: int) -> float:
    """Return the fraction of requests that has moved to a model of this age in days; half of them at the age `half`."""
    return 1 / (1 + math.exp((half - age) / (half / 4.5))) if age >= 0 else 0.0


@cache
def _taste(tag: str, family: _Family) -> float:
    """Return a task's preference for a family of models: 1 is neutral."""
    return math.exp(family.focus * (_chance(f"{tag} {family.name}") + _chance(f"{family.name} {tag}") - 1))


def _drift(name: str, as_of: date, size: float) -> float:
    """Return the value of two slow waves around 1, always the same for a name and day."""
    slow, slow_phase, fast, fast_phase = _waves(name)
    day = as_of.toordinal()
    return 1 + size * (math.sin(day * slow + slow_phase) + 0.4 * math.sin(day * fast + fast_phase))


@cache
def _waves(name: str) -> tuple[float, float, float, float]:
    """Return angular frequency (1/day) and phase of a slow wave (90 to 250 days), then of a faster one (20 to 45)."""
    turn = 2 * math.pi
    return (
        turn / (90 + 160 * _chance(f"slow {name}")),
        turn * _chance(f"slow phase {name}"),
        turn / (20 + 25 * _chance(f"fast {name}")),
        turn * _chance(f"fast phase {name}"),
    )


def _chance(text: str) -> float:
    """Return a pseudorandom number from 0 to 1, always the same for a text, on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48


def _fractions(weights: Mapping[Key, float]) -> dict[Key, float]:
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items()}
