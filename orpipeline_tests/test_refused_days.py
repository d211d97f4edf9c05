"""Each violation through the real assets: the day refused, the rule and row named, the tables as they were."""

from __future__ import annotations

import pytest

from orpipeline.contracts.rules import CHECKS, RULES
from orpipeline.snapshot import Fetch
from orpipeline_tests.answers import DAY, answer
from orpipeline_tests.scripted_api import KEY, ScriptedApi
from orpipeline_tests.violations import VIOLATIONS, Violation
from orpipeline_tests.world import World, checks_of, failure_of

pytestmark = pytest.mark.usefixtures("at_noon")


@pytest.mark.parametrize("violation", [v for v in VIOLATIONS if "as_of" not in v.name], ids=str)
def test_a_refused_day_leaves_the_tables_as_they_were(world: World, violation: Violation) -> None:
    world.keep(answer())
    world.make_tables(DAY)
    before = world.tables()
    restated = world.keep(answer(bend=violation.bend)).record

    result = world.run(DAY)

    failure = failure_of(result)
    assert failure.description is not None
    for said in (DAY.isoformat(), violation.rule, "its tables keep revision 1", str(restated.path)):
        assert said in failure.description
    table = failure.metadata["findings"].value
    rows = [record.data for record in table.records]  # type: ignore[union-attr] # the metadata is a table
    assert any(row["rule"] == violation.rule and violation.row in str(row["row"]) for row in rows), rows
    assert world.tables() == before
    # The check on the asset says the same, with the rows as a table.
    (check,) = (check for check in CHECKS.values() if RULES[violation.rule] in check.rules)
    evaluation = checks_of(result)[check.table, check.name]
    assert not evaluation.passed
    assert "first_failing_rows" in evaluation.metadata
    # The bytes are kept although they are refused.
    assert world.archive.read(restated) == answer(bend=violation.bend)


@pytest.mark.parametrize("violation", [v for v in VIOLATIONS if "as_of" in v.name], ids=str)
def test_an_answer_for_no_day_or_another_changes_no_table(
    world: World, api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, violation: Violation
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    api.answers(answer(bend=violation.bend))
    asking = World(world.folder, world.instance, api.base_url)

    failure = failure_of(asking.run(DAY, fetch=Fetch.auto))

    assert failure.description is not None
    assert "kept" in failure.description
    kept = list((world.folder / "raw").rglob("*.json.gz"))
    assert len(kept) == 1
    assert "2026-10-06" not in kept[0].parts
    assert all(not rows for rows in world.tables().values())


def test_checks_that_hold_say_so_on_a_refused_day(world: World) -> None:
    violation = next(v for v in VIOLATIONS if v.rule == "totals_are_one")
    world.keep(answer(bend=violation.bend))
    checks = checks_of(world.run(DAY))
    assert not checks["task_classifications", "totals_are_one"].passed
    assert checks["task_classifications", "shares_are_fractions"].passed


def test_a_warning_shows_in_the_check_and_lets_the_day_through(world: World) -> None:
    world.keep(answer(bend=lambda data: data.update(note="new")))
    result = world.run(DAY)
    assert result.success
    check = checks_of(result)["raw_task_classifications", "nothing_unexpected"]
    assert not check.passed
    assert check.severity.value == RULES["no_unknown_fields"].severity == "WARN"
    assert world.tables()["snapshots"]
