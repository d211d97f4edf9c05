from __future__ import annotations

from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from orpipeline_tests.answers import DAY, answer, macro, tag
from orpipeline_tests.world import NOON, World, checks_of, failure_of

pytestmark = pytest.mark.usefixtures("at_noon")
LATER = NOON + timedelta(hours=9)


def _restate(data: dict[str, Any]) -> None:
    # Two tags of one macro-category trade 0.004 of all requests: every rule still holds.
    general = macro(data, "general")["usage_share"]
    for name, change in (("translation", 0.004), ("content_writing", -0.004)):
        task = tag(data, name)
        task["usage_share"] = round(task["usage_share"] + change, 3)
        task["category_usage_share"] = round(task["usage_share"] / general, 3)


def _break(data: dict[str, Any]) -> None:
    data["window_days"] = 30


def _share_of_translation(world: World) -> float:
    (share,) = (row["usage_share"] for row in world.tables()["task_classifications"] if row["tag"] == "translation")
    return float(share)


def test_a_restated_day_becomes_the_tables_next_revision_and_a_check_says_how_far_it_moved(world: World) -> None:
    world.keep(answer())
    world.run(DAY)
    before = _share_of_translation(world)
    world.keep(answer(bend=_restate), fetched_at=LATER)
    result = world.run(DAY)

    assert result.success
    assert world.tables()["snapshots"][0]["revision"] == 2
    assert _share_of_translation(world) == pytest.approx(before + 0.004)
    check = checks_of(result)["task_classifications", "restatement"]
    assert check.passed
    assert check.metadata["largest_change"].value == pytest.approx(0.004)
    changes = check.metadata["changes"]
    assert isinstance(changes, dg.TableMetadataValue)
    (row,) = changes.records
    assert row.data["day"] == "2026-10-06 r2"
    assert row.data["tag"] in ("translation", "content_writing")


def test_an_older_revision_can_be_brought_back_by_run_config(world: World) -> None:
    world.keep(answer())
    world.keep(answer(bend=_restate), fetched_at=LATER)
    assert world.run(DAY).success
    assert world.run(DAY, revision=1).success
    assert world.tables()["snapshots"][0]["revision"] == 1


def test_a_revision_that_is_not_there_is_named(world: World) -> None:
    world.keep(answer())
    failure = failure_of(world.run(DAY, revision=3))
    assert "no revision 3 of 2026-10-06; it has: 1" in str(failure.description)


def test_tables_made_anew_get_the_newest_revision_that_holds(world: World) -> None:
    world.keep(answer())
    world.keep(answer(bend=_restate), fetched_at=LATER)
    world.keep(answer(bend=_break), fetched_at=LATER + timedelta(minutes=1))
    result = world.run(DAY)

    # A person has to see that the newest answer was refused; the figures are those of the one before.
    assert "its tables keep revision 2, the newest that holds" in str(failure_of(result).description)
    assert world.tables()["snapshots"][0]["revision"] == 2
    assert not checks_of(result)["raw_task_classifications", "answer_is_as_asked"].passed
    assert world.materialized("model_leaderboard") == {"2026-10-06"}


def test_where_no_revision_holds_the_tables_stay_empty(world: World) -> None:
    world.keep(answer(bend=_break))
    world.keep(answer(bend=lambda data: data.update(window_days=1)), fetched_at=LATER)
    assert "keep what they had" in str(failure_of(world.run(DAY)).description)
    assert world.tables()["snapshots"] == []


def test_lost_days_are_listed_and_the_newest_is_not_lost_yet(world: World) -> None:
    for n in (9, 8, 5, 1):
        world.keep(answer(DAY - timedelta(days=n)))
    result = world.run(DAY - timedelta(days=1))
    check = checks_of(result)["raw_task_classifications", "no_lost_days"]
    assert not check.passed
    assert check.severity.value == "WARN"
    assert check.metadata["lost_days"].value == 5
    assert check.metadata["newest_lost"].value == "2026-09-29, 2026-09-30, 2026-10-02, 2026-10-03, 2026-10-04"


def test_without_a_hole_no_day_is_lost(world: World) -> None:
    world.keep(answer())
    check = checks_of(world.run(DAY))["raw_task_classifications", "no_lost_days"]
    assert check.passed
