"""The demo's made-up responses: always the same, and like a real year."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import date, timedelta
from itertools import pairwise

import pytest

from orpipeline.testing import sample_response

NEWEST = date(2026, 11, 23)
DAYS = [NEWEST - timedelta(days=back) for back in reversed(range(400))]
Shares = dict[str, float]


def _shares(day: date, share: str) -> Shares:
    """Return each model's share of all requests (`usage_share`) or tokens (`token_share`), as far as it is listed."""
    found: Shares = defaultdict(float)
    for task in json.loads(sample_response(day))["data"]["classifications"]:
        for model in task["models"]:
            found[model["id"]] += task[share] * model[f"tag_{share}"]
    return found


def _by_author(shares: Shares) -> Shares:
    found: Shares = defaultdict(float)
    for model, share in shares.items():
        found[model.split("/")[0]] += share
    return found


def _family(model: str) -> str:
    """Return a model's author and name, without version and date."""
    return "-".join(part for part in model.split(":")[0].split("-") if not part.isdigit())


@pytest.fixture(scope="module")
def year() -> list[Shares]:
    """The models' shares of requests on each day, oldest first."""
    return [_shares(day, "usage_share") for day in DAYS]


def test_a_date_gives_the_same_bytes_in_any_process_and_order() -> None:
    days = DAYS[::97]
    program = (
        "import sys; from orpipeline.testing import sample_response\n"
        "for day in sys.argv[1:]: print(sample_response(day).decode())"
    )
    command = [sys.executable, "-c", program, *(day.isoformat() for day in reversed(days))]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [sample_response(day).decode() for day in days] == printed[::-1]


def test_each_day_has_the_shape_of_a_real_response(year: list[Shares]) -> None:
    for day, shares in zip(DAYS[::20], year[::20], strict=True):
        tasks = json.loads(sample_response(day))["data"]["classifications"]
        assert [len(task["models"]) for task in tasks] == [10] * 29
        assert all(sum(model["tag_usage_share"] for model in task["models"]) <= 0.88 for task in tasks)
        assert 0.55 < sum(shares.values()) < 0.70
        assert 35 <= len(shares) <= 50
        assert 12 <= len(_by_author(shares)) <= 16
        assert 0.07 < max(shares.values()) < 0.13
        assert 0.13 < max(_by_author(shares).values()) < 0.20
        assert 0.55 < sum(_shares(day, "token_share").values()) < 0.75


def test_incumbents_stay_among_the_first_five_and_leaders_change_a_few_times_a_year(year: list[Shares]) -> None:
    leaders = [max(shares, key=shares.__getitem__) for shares in year]
    assert 4 <= sum(one != next_one for one, next_one in pairwise(leaders)) <= 8
    top = Counter(
        family
        for shares in year
        for family in {_family(model) for model in sorted(shares, key=shares.__getitem__, reverse=True)[:5]}
    )
    incumbents = {"demo-aurora/borealis", "demo-basalt/columns-flash", "demo-cinder/ember-lite"}
    assert all(top[name] > 0.8 * len(year) for name in incumbents)
    assert 6 <= len(top) <= 10


def test_a_free_model_is_among_the_first_for_some_weeks_only(year: list[Shares]) -> None:
    firsts = [sorted(shares, key=shares.__getitem__, reverse=True)[:5] for shares in year]
    free = Counter(_family(model) for models in firsts for model in models if model.endswith(":free"))
    assert 14 <= free["demo-glade/firefly-alpha"] <= 60


def test_a_model_can_have_a_small_share_of_requests_and_a_large_share_of_tokens(year: list[Shares]) -> None:
    tokens = _shares(NEWEST, "token_share")
    ratios = [tokens[model] / share for model, share in year[-1].items() if share > 0.02]
    assert min(ratios) < 0.4
    assert max(ratios) > 1.5


def test_shares_of_leading_models_move_smoothly(year: list[Shares]) -> None:
    moves = [
        abs(after.get(model, 0) - share)
        for before, after in pairwise(year)
        for model, share in before.items()
        if share > 0.06
    ]
    assert max(moves) < 0.012
