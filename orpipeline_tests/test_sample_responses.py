"""The demo's made-up responses: always the same, valid, and in the shape of real ones."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import date, timedelta
from hashlib import sha256

from orpipeline.contracts.frames import parse
from orpipeline.contracts.validation import validate
from orpipeline.testing import sample_response
from orpipeline_tests.processes import run_python

DAYS = [date(2026, 11, 23) - timedelta(days=back) for back in reversed(range(400))]


def test_a_date_gives_the_same_bytes_in_any_process_and_order() -> None:
    code = (
        "import sys; from hashlib import sha256; from orpipeline.testing import sample_response\n"
        "for day in sys.argv[1:]: print(sha256(sample_response(day)).hexdigest())"
    )
    digests = [sha256(sample_response(day)).hexdigest() for day in DAYS[::97]]
    assert run_python(code, *reversed(DAYS[::97])).split() == digests[::-1]


def test_more_than_a_year_is_valid_and_each_day_has_the_shape_of_a_real_response() -> None:
    bodies = {day: sample_response(day) for day in DAYS}
    assert validate(parse(bodies.items())).is_empty()
    for day in DAYS[::20]:
        shares: dict[str, float] = defaultdict(float)
        tasks = json.loads(bodies[day])["data"]["classifications"]
        for task in tasks:
            for model in task["models"]:
                shares[model["id"]] += task["usage_share"] * model["tag_usage_share"]
        assert [len(task["models"]) for task in tasks] == [10] * 29
        assert 35 <= len(shares) <= 50
        assert 0.55 < sum(shares.values()) < 0.7
        assert 0.07 < max(shares.values()) < 0.13
        assert sum(name.startswith("demo-") for name in shares) == len(shares)
