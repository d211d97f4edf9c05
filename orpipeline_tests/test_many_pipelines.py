"""The sensor's questions do not grow with other people's runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
import time_machine

from orpipeline.clock import utc_now
from orpipeline.defs.runs import active_run
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, NOON, World

OTHER_RUNS = 50


def _with_a_run(instance: dg.DagsterInstance, job: str, **how: Any) -> None:
    status = dg.DagsterRunStatus.NOT_STARTED
    instance.add_run(dg.DagsterRun(job, status=status, **how))


@pytest.mark.parametrize(
    "how",
    [
        {"tags": {"dagster/partition": str(DAY)}},
        {"tags": {"dagster/asset_partition_range_start": "2026-09-01", "dagster/asset_partition_range_end": str(DAY)}},
    ],
    ids=["a day", "a range"],
)
def test_a_run_is_found_by_what_it_selects_among_the_runs_of_others(how: dict[str, Any]) -> None:
    mine: list[Callable[[dg.DagsterInstance], None]] = [
        lambda instance: _with_a_run(instance, "daily_snapshot", **how),
        lambda instance: _with_a_run(instance, "__ASSET_JOB", asset_selection=frozenset({NAMES.raw}), **how),
    ]
    for add in mine:
        with dg.DagsterInstance.ephemeral() as instance:
            for _ in range(OTHER_RUNS):
                _with_a_run(instance, "other_daily_snapshot", **how)
            assert active_run(instance, NAMES, utc_now(), DAY) is None
            add(instance)
            assert active_run(instance, NAMES, utc_now(), DAY) is not None


def test_a_tick_reads_no_runs_of_others(online: World) -> None:
    for job in ("other", "other_daily_snapshot"):
        for _ in range(OTHER_RUNS):
            run = dg.DagsterRun(job, status=dg.DagsterRunStatus.FAILURE, tags={"dagster/partition": str(DAY)})
            online.instance.add_run(run)
    rows: list[dg.RunRecord] = []
    original = online.instance.get_run_records

    def counted(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        rows.extend(found)
        return found

    with pytest.MonkeyPatch.context() as patch, time_machine.travel(NOON, tick=False):
        patch.setattr(online.instance, "get_run_records", counted)
        assert online.tick().run_requests
    assert rows == []
