from __future__ import annotations

import dagster as dg

from orpipeline.clock import utc_now
from orpipeline.defs.runs import active_run, latest_ended_run
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES

OTHER_RUNS = 250


def test_a_pipeline_finds_its_runs_among_the_runs_of_many_others() -> None:
    tags = {"dagster/partition": DAY.isoformat()}
    with dg.DagsterInstance.ephemeral() as instance:
        for job, count in (("daily_snapshot", 1), ("other_daily_snapshot", OTHER_RUNS)):
            for _ in range(count):
                for status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.FAILURE):
                    instance.add_run(dg.DagsterRun(job, status=status, tags=tags))
        assert active_run(instance, NAMES, utc_now(), DAY) is not None
        assert latest_ended_run(instance, NAMES, DAY, known=None) is not None
