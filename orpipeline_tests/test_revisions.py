"""Several responses for a day: which one is in the tables, and what a run says about the others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orpipeline.clock import day_spans
from orpipeline.load import Loaded, load_days
from orpipeline.report.files import write_report
from orpipeline.testing import sample_response
from orpipeline.warehouse.tables import Tables
from orpipeline.warehouse.warehouse import Warehouse
from orpipeline_tests.imports import envelope, in_every_asset, materialized, run_job, write
from orpipeline_tests.responses import DAY, macro, tag
from orpipeline_tests.world import NAMES, NOON, World, checks_of, failure_of, local

pytestmark = [pytest.mark.promise, pytest.mark.usefixtures("at_noon")]
LATER = NOON + timedelta(hours=9)
FIRST = sample_response(DAY)


def _restate(data: dict[str, Any]) -> None:
    # Two tags of one macro-category trade 0.004 of all requests, which breaks no rule.
    general = macro(data, "general")["usage_share"]
    for name, change in (("translation", 0.004), ("content_writing", -0.004)):
        task = tag(data, name)
        task["usage_share"] = round(task["usage_share"] + change, 3)
        task["category_usage_share"] = round(task["usage_share"] / general, 3)


RESTATED = sample_response(DAY, change=_restate)
INVALID = sample_response(DAY, change=lambda data: data.update(window_days=30))


def _archive(world: World, *bodies: bytes) -> list[Path]:
    """Archive responses for the day, one minute after the other, and return their files."""
    times = [NOON, *(LATER + timedelta(minutes=n) for n in range(len(bodies) - 1))]
    stored = [world.store(body, fetched_at=at) for body, at in zip(bodies, times, strict=True)]
    return [local(one.revision.path) for one in stored]


def _load(world: World, **options: Any) -> Loaded:
    return load_days(world.archive, world.warehouse, [DAY], now=NOON, **options)


def _revision(world: World) -> int:
    """Return which revision is in the tables."""
    (row,) = world.tables()["snapshots"]
    return int(row["revision"])


def _share_of_translation(world: World) -> float:
    (share,) = (row["usage_share"] for row in world.tables()["task_classifications"] if row["tag"] == "translation")
    return float(share)


def _raw_version(world: World) -> str | None:
    """Return the data version of the day's raw response in Dagster."""
    event = world.instance.get_latest_materialization_event(NAMES.raw)
    assert event is not None
    assert event.asset_materialization is not None
    return (event.asset_materialization.tags or {}).get("dagster/data_version")


def test_a_restated_day_becomes_the_next_revision_and_a_check_shows_how_far_it_moved(world: World) -> None:
    _archive(world, FIRST)
    world.run(DAY)
    before = _share_of_translation(world)
    _archive(world, FIRST, RESTATED)
    result = world.run(DAY)

    assert result.success
    assert _revision(world) == 2
    assert _share_of_translation(world) == pytest.approx(before + 0.004)
    check = checks_of(result)["task_classifications", "restatement"]
    assert check.passed
    assert check.metadata["largest_change"].value == pytest.approx(0.004)
    changes = check.metadata["changes"]
    assert isinstance(changes, dg.TableMetadataValue)
    (row,) = changes.records
    assert row.data["day"] == "2026-10-06 r2"
    assert row.data["tag"] in ("translation", "content_writing")


def test_the_run_config_can_select_an_older_revision_and_names_one_that_does_not_exist(world: World) -> None:
    _archive(world, FIRST, RESTATED)
    assert world.run(DAY).success
    assert world.run(DAY, revision=1).success
    assert _revision(world) == 1
    assert "no revision 3 of 2026-10-06; it has: 1, 2" in str(failure_of(world.run(DAY, revision=3)).description)


def test_a_damaged_older_revision_is_not_compared_and_stops_no_table(world: World) -> None:
    world.store(sample_response(DAY - timedelta(days=1)))
    first, _ = _archive(world, FIRST, RESTATED)
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    result = world.run(DAY - timedelta(days=1), DAY)

    assert result.success
    assert world.materialized("model_leaderboard") == {"2026-10-05", "2026-10-06"}
    check = checks_of(result)["task_classifications", "restatement"]
    assert check.metadata["restated_days"].value == 0
    skipped = check.metadata["not_compared"]
    assert isinstance(skipped, dg.TableMetadataValue)
    (row,) = skipped.records
    assert str(first) in str(row.data["why"])


def test_a_day_with_a_damaged_newest_revision_is_loaded_from_the_intact_one(world: World) -> None:
    _, damaged = _archive(world, FIRST, RESTATED)
    damaged.write_bytes(b"rubbish")

    # The run fails because a person should see the damage, but the intact response is in the tables.
    assert "damaged" in str(failure_of(world.run(DAY)).description)
    assert world.materialized("raw_task_classifications") == world.materialized("snapshots") == {"2026-10-06"}
    assert _raw_version(world) == world.tables()["snapshots"][0]["sha256"]
    assert _revision(world) == 1


def test_importing_twice_beside_a_damaged_revision_changes_nothing_the_second_time(
    world: World, tmp_path: Path
) -> None:
    local(world.store(RESTATED, fetched_at=LATER).revision.path).write_bytes(b"rubbish")
    older = write(tmp_path / "older.json", envelope(FIRST, fetched_at=NOON))
    first, second = (run_job(world, older).result for _ in range(2))
    assert first.success
    assert second.success
    assert materialized(world.instance) == in_every_asset([DAY])
    assert len(first.get_asset_materialization_events()) == len(in_every_asset([DAY]))
    assert second.get_asset_materialization_events() == []


def test_a_response_that_is_archived_before_the_lock_is_the_one_that_is_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process archives a restated response after this run began, and before it locks the warehouse."""
    _archive(world, FIRST)
    lock = Warehouse.writing

    @contextmanager
    def overtaken(warehouse: Warehouse) -> Iterator[Tables]:
        world.store(RESTATED, fetched_at=LATER)
        with lock(warehouse) as tables:
            yield tables

    monkeypatch.setattr(Warehouse, "writing", overtaken)
    assert world.run(DAY).success
    newest = world.archive.latest(DAY)
    assert newest is not None
    assert _revision(world) == newest.number == 2
    assert _raw_version(world) == world.archive.read(newest).sha256


def test_a_damaged_file_keeps_the_days_rows(world: World) -> None:
    (path,) = _archive(world, FIRST)
    world.make_tables(DAY)
    path.write_bytes(b"rubbish")
    assert str(path) in str(_load(world).validated.errors[DAY])
    assert _revision(world) == 1


def test_empty_tables_get_the_newest_valid_revision(world: World) -> None:
    _archive(world, FIRST, RESTATED, INVALID)
    result = world.run(DAY)

    # The run fails because a person should see the rejection; the figures are those of the revision before.
    assert "its tables use revision 2, the newest valid one" in str(failure_of(result).description)
    assert _revision(world) == 2
    assert not checks_of(result)["raw_task_classifications", "response_matches_request"].passed
    assert world.materialized("model_leaderboard") == {"2026-10-06"}


def test_warnings_belong_to_the_revision_in_the_tables_not_to_a_rejected_newer_one(world: World) -> None:
    _archive(world, FIRST, sample_response(DAY, change=lambda data: data.update(window_days=30, surprise="new")))
    assert not world.run(DAY).success
    event = world.instance.get_latest_materialization_event(NAMES.asset("snapshots"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["validation_warnings"].value == 0
    with world.warehouse.reading() as tables:
        written = write_report(world.settings.reports, tables, now=NOON)
    assert "surprise" not in Path(written.page).read_text()


def test_without_a_valid_revision_the_tables_stay_empty(world: World) -> None:
    first, _ = _archive(world, INVALID, sample_response(DAY, change=lambda data: data.update(window_days=1)))
    first.write_bytes(b"rubbish")
    assert "unchanged" in str(_load(world).validated.errors[DAY])
    assert world.tables()["snapshots"] == []


# Lost days


def test_lost_days_are_listed_and_the_newest_is_not_lost_yet(world: World) -> None:
    for n in (9, 8, 5, 1):
        world.store(sample_response(DAY - timedelta(days=n)))
    check = checks_of(world.run(DAY - timedelta(days=1)))["raw_task_classifications", "no_lost_days"]
    assert not check.passed
    assert check.severity.value == "WARN"
    assert check.metadata["lost_days"].value == 5
    assert check.metadata["newest_lost"].value == "2026-09-29, 2026-09-30, 2026-10-02, 2026-10-03, 2026-10-04"


def test_a_day_that_only_the_tables_have_is_not_lost_even_if_the_run_has_nothing_to_load(world: World) -> None:
    days = [DAY - timedelta(days=n) for n in (2, 1)]
    files = [local(world.store(sample_response(day)).revision.path) for day in days]
    world.make_tables(*days)
    shutil.rmtree(files[-1].parent)
    result = world.run(DAY)
    assert not result.success
    assert checks_of(result)["raw_task_classifications", "no_lost_days"].passed


def test_days_are_written_as_spans() -> None:
    days = [date(2026, 7, 8) + timedelta(days=n) for n in range(43)]
    assert day_spans([*reversed(days), date(2026, 9, 1), days[0]]) == ["2026-07-08 to 2026-08-19", "2026-09-01"]
    assert day_spans([date(2026, 12, 31), date(2027, 1, 1)]) == ["2026-12-31 to 2027-01-01"]
    assert day_spans([]) == []
