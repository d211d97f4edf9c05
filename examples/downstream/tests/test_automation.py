from datetime import UTC, datetime

import dagster as dg

import orpipeline
from analyst.definitions import records
from market.newcomers import newcomers
from orpipeline.testing import LocalPipeline


def test_a_new_day_requests_newcomers(openrouter: LocalPipeline) -> None:
    defs = dg.Definitions([newcomers, *orpipeline.external_specs()], resources=orpipeline.resources())
    noon = datetime(2026, 10, 7, 12, tzinfo=UTC)
    before = dg.evaluate_automation_conditions(defs, openrouter.instance, evaluation_time=noon)
    openrouter.materialize(day="2026-10-06")
    after = dg.evaluate_automation_conditions(defs, openrouter.instance, evaluation_time=noon, cursor=before.cursor)
    assert before.total_requested == 0
    assert after.get_requested_partitions(newcomers.key) == {"2026-10-06"}


def test_records(openrouter: LocalPipeline) -> None:
    openrouter.load("2026-10-01", "2026-10-06")
    openrouter.materialize([records])
    assert openrouter.read("analyst.records")["model_id"].is_unique().all()
