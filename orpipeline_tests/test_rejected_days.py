"""Rejected responses in Dagster: the rule and row are named, a blocking check fails, and the tables are unchanged."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orpipeline.capture import Fetch
from orpipeline.contracts.rules import RULES
from orpipeline.defs.checks import CHECKS
from orpipeline.errors import InvalidSnapshotError
from orpipeline.load import load_days
from orpipeline.testing import LocalApi, sample_response
from orpipeline_tests.responses import DAY, tag
from orpipeline_tests.violations import ONE_PER_RULE
from orpipeline_tests.world import NOON, World, checks_of, failure_of

pytestmark = [pytest.mark.promise, pytest.mark.usefixtures("at_noon")]


def test_a_rejected_day_leaves_the_tables_unchanged(world: World) -> None:
    """One day for each rule that rejects, in one run."""
    days = {DAY - timedelta(days=n): violation for n, violation in enumerate(ONE_PER_RULE)}
    bodies = {day: sample_response(day, change=violation.bend) for day, violation in days.items()}
    for day in days:
        world.store(sample_response(day))
    world.make_tables(*days)
    before = world.tables()
    restated = {day: world.store(body, fetched_at=NOON + timedelta(hours=9)).revision for day, body in bodies.items()}

    result = world.run(*days)

    errors = load_days(world.archive, world.warehouse, [*days], now=NOON).validated.errors
    assert not result.success
    assert world.tables() == before
    for day, violation in days.items():
        row = violation.row.replace(DAY.isoformat(), day.isoformat())
        for part in (day.isoformat(), violation.rule, "revision 1", str(restated[day].path)):
            assert part in str(errors[day])
        error = errors[day]
        assert isinstance(error, InvalidSnapshotError)
        assert error.findings.filter(rule=violation.rule)["row"].str.contains(row, literal=True).any(), violation
        evaluation = checks_of(result)[of_rule(violation.rule)]
        assert not evaluation.passed
        assert evaluation.blocking
        assert "first_failing_rows" in evaluation.metadata
        assert world.archive.read(restated[day]).body == bodies[day]


def of_rule(name: str) -> tuple[str, str]:
    check = next(check for check in CHECKS.values() if RULES[name] in check.rules)
    return check.table, check.name


def test_invisible_characters_of_a_rejected_day_are_visible_in_dagster(world: World) -> None:
    world.store(sample_response(DAY, change=lambda data: tag(data, "math").update(tag="o\u202ether\u3164")))
    result = world.run(DAY)
    failure = failure_of(result)
    check = checks_of(result)["task_classifications", "keys_are_valid"]
    for text in (
        failure.description,
        str(failure.metadata["findings"].value),
        str(check.metadata["first_failing_rows"].value),
    ):
        assert text is not None
        assert "no_other_bucket" in text
        assert "o\\u202ether\\u3164" in text.replace("\\\\", "\\")
        assert not {"\u202e", "\u3164"} & set(text)


@pytest.mark.parametrize("stated", ["2026-10-05", "../../x", None], ids=["another day", "no date", "missing"])
def test_a_response_of_another_or_no_day_changes_no_table(online: World, api: LocalApi, stated: str | None) -> None:
    api.serve(sample_response(DAY, change=lambda data: data.update(as_of=stated)))
    failure = failure_of(online.run(DAY, fetch=Fetch.auto))
    assert "archived" in str(failure.description)
    (path,) = (online.folder / "raw").rglob("*.json.gz")
    assert "2026-10-06" not in path.parts
    assert not any(online.tables().values())


def test_the_other_checks_of_a_rejected_day_pass(world: World) -> None:
    violation = next(v for v in ONE_PER_RULE if v.rule == "totals_are_one")
    path = world.store(sample_response(DAY, change=violation.bend)).revision.path
    result = world.run(DAY)
    checks = checks_of(result)
    failure = failure_of(result)
    for part in (DAY.isoformat(), "totals_are_one", str(path)):
        assert part in str(failure.description)
    table = failure.metadata["findings"].value
    rows = [record.data for record in table.records]  # type: ignore[union-attr] # the metadata is a table
    assert any(row["rule"] == "totals_are_one" and violation.row in str(row["row"]) for row in rows), rows
    assert not checks["task_classifications", "shares_agree"].passed
    assert checks["task_classifications", "keys_are_valid"].passed
    assert ("model_leaderboard", "bounds_hold") not in checks  # without rows, the check must not pass


def test_a_warning_appears_in_its_check_and_the_day_is_loaded(world: World) -> None:
    world.store(sample_response(DAY, change=lambda data: data.update(note="new")))
    result = world.run(DAY)
    assert result.success
    check = checks_of(result)["raw_task_classifications", "nothing_unexpected"]
    assert not check.passed
    assert not check.blocking
    assert check.severity.value == RULES["no_unknown_fields"].severity == "WARN"
    assert world.tables()["snapshots"]
