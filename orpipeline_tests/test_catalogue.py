"""The second dataset: from the response of `GET /models` to `models`, `model_prices` and `named_leaderboard`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from orpipeline.archive import Archive
from orpipeline.capture import Fetch
from orpipeline.catalogue import CATALOGUE
from orpipeline.catalogue.rows import catalogue_rows
from orpipeline.load import load_catalogues, rebuild
from orpipeline.testing import LocalApi, Reply, sample_catalogue, sample_response
from orpipeline_tests.imports import run_job
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import NAMES, NOON, World, failure_of

EVERY = [key.path[-1] for key in (*NAMES.daily_assets, *NAMES.catalogue_assets)]
REAL = Path(__file__).resolve().parents[2] / "shared" / "real" / "models_excerpt_2026-09-01.json"
ENTRY = {
    "id": "one/large:free",
    "canonical_slug": "one/large-20260101",
    "name": "One: Large (free)",
    "hugging_face_id": "one/large",
    "created": 1_790_000_000,
    "context_length": 1000,
    "pricing": {"prompt": "0.00000004", "completion": "0.0000015"},
    "expiration_date": "2027-01-01",
}


def rows(*entries: Mapping[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return catalogue_rows(DAY, json.dumps({"data": entries}).encode())


def test_an_entry_becomes_a_row_with_prices_per_million_tokens() -> None:
    router = {**ENTRY, "id": "~one/auto", "hugging_face_id": "", "pricing": {"prompt": "-1", "completion": "-1"}}
    frame, findings = rows(ENTRY, router)
    assert findings.is_empty()
    first, second = frame.to_dicts()
    assert first == {
        "as_of": DAY,
        "model_id": "one/large:free",
        "permaslug": "one/large-20260101",
        "name": "One: Large (free)",
        "author": "one",
        "created": datetime.fromtimestamp(1_790_000_000, UTC),
        "open_weights": True,
        "context_length": 1000,
        "prompt_price": 0.04,
        "completion_price": 1.5,
        "expires": date(2027, 1, 1),
    }
    assert (second["author"], second["open_weights"], second["prompt_price"]) == ("one", False, None)


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"pricing": {"prompt": "-0.1", "completion": "0"}}, "prices_are_not_negative"),
        ({"pricing": {"prompt": "1e999", "completion": "0"}}, "prices_are_not_negative"),
        ({"pricing": {"prompt": "free", "completion": "0"}}, "prices_are_not_negative"),
        ({"pricing": None}, "prices_are_not_negative"),
        ({"canonical_slug": None}, "required_fields"),
        ({"id": 7}, "required_fields"),
        ({"id": " "}, "keys_are_not_empty"),
        ({"id": ENTRY["id"]}, "keys_are_unique"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else None,
)
def test_a_catalogue_that_would_make_a_figure_wrong_is_rejected(entry: dict[str, Any], rule: str) -> None:
    _, findings = rows(ENTRY, {**ENTRY, "id": "one/other", **entry})
    assert findings.filter(severity="ERROR")["rule"].unique().to_list() == [rule]


def test_new_fields_are_only_reported() -> None:
    frame, findings = rows({**ENTRY, "color": "blue"})
    assert len(frame) == 1
    assert findings.select("rule", "severity", "found").rows() == [("no_unknown_fields", "WARN", '"color"')]


@pytest.mark.skipif(not REAL.exists(), reason="the excerpt of a real catalogue is not beside the project")
def test_a_real_catalogue_is_valid() -> None:
    frame, findings = catalogue_rows(date(2026, 8, 31), REAL.read_bytes())
    assert findings.is_empty()
    assert frame["open_weights"].to_list() == [False, True, False, True, True, True, False]


def _loaded(world: World, *catalogues: tuple[date, bytes]) -> None:
    for day, body in catalogues:
        at = datetime(day.year, day.month, day.day, 0, 20, tzinfo=UTC) + timedelta(days=1)
        world.archive.of(CATALOGUE).put(body, fetched_at=at, source="a test", origin="demo")
    loaded = load_catalogues(world.archive, world.warehouse, [day for day, _ in catalogues], now=NOON)
    assert not loaded.errors


def test_model_prices_has_a_row_for_each_change(world: World) -> None:
    dearer = {**ENTRY, "pricing": {"prompt": "0.00000004", "completion": "0.000002"}}
    bodies = [json.dumps({"data": [entry]}).encode() for entry in (ENTRY, ENTRY, dearer)]
    days = [DAY - timedelta(days=before) for before in (4, 2, 0)]
    _loaded(world, *zip(days, bodies, strict=True))
    (change,) = world.warehouse.read("model_prices").to_dicts()
    assert (change["as_of"], change["as_of_before"]) == (DAY, days[1])
    assert (change["completion_price_before"], change["completion_price"], change["prompt_price"]) == (1.5, 2.0, 0.04)


def test_the_leaderboard_gets_the_names_of_the_day_or_of_the_newest_day_before(world: World) -> None:
    before, after = DAY - timedelta(days=1), DAY + timedelta(days=1)
    for day in (before, DAY, after):
        world.store(sample_response(day))
    world.make_tables(before, DAY, after)
    (top, *_) = world.warehouse.read("latest_leaderboard").sort("usage_rank")["model_id"]
    slug, _, variant = top.partition(":")

    def named(name: str) -> bytes:
        entry = {**ENTRY, "id": f"x/y:{variant}" if variant else "x/y", "canonical_slug": slug, "name": name}
        other = {**entry, "id": f"{entry['id']}-longer" if not variant else f"x/y-longer:{variant}", "name": "another"}
        return json.dumps({"data": [other, entry]}).encode()

    _loaded(world, (DAY, named("Top")))
    rows = world.warehouse.read("named_leaderboard")
    assert len(rows) == len(world.warehouse.read("model_leaderboard"))
    of_top = rows.filter(model_id=top, scope="all").sort("as_of")
    assert of_top["name"].to_list()[-2:] == ["Top", "Top"]
    assert of_top["catalogue_as_of"].to_list()[-2:] == [DAY, DAY]
    others = rows.filter((pl.col("model_id") != top) | (pl.col("as_of") < DAY))
    assert others["name"].null_count() == len(others)


def test_catalogues_are_imported_from_an_archive_and_from_files_that_state_their_time(
    world: World, tmp_path: Path
) -> None:
    other, days = Archive(tmp_path / "other"), [DAY - timedelta(days=n) for n in range(3)]
    at = NOON - timedelta(days=2)
    other.put(sample_response(days[2]), fetched_at=at, source="x", origin="demo")
    other.of(CATALOGUE).put(sample_catalogue(days[2]), fetched_at=at, source="x", origin="demo")
    enveloped = {"fetched_at": (NOON - timedelta(days=1)).isoformat(), "raw": json.loads(sample_catalogue(days[1]))}
    (tmp_path / "one.json").write_text(json.dumps(enveloped))
    (tmp_path / "20261007T120000Z-models.json").write_bytes(sample_catalogue(DAY))
    (tmp_path / "undated.json").write_bytes(sample_catalogue(DAY))
    paths = [str(tmp_path / name) for name in ("other", "one.json", "20261007T120000Z-models.json", "undated.json")]
    for catalogues in (3, 0):
        result = run_job(world, *paths)
        assert len(result.imported.catalogues) == catalogues
        assert [one.source for one in result.imported.rejected] == ["undated.json"]
    assert world.warehouse.read("models")["as_of"].unique().sort().to_list() == days[::-1]
    assert world.materialized("models") == {str(day) for day in days}
    (revision,) = world.archive.of(CATALOGUE).revisions(days[2])
    assert world.archive.of(CATALOGUE).read(revision).body == sample_catalogue(days[2])


@pytest.mark.usefixtures("at_noon")
def test_a_run_loads_the_catalogue_beside_the_classifications(online: World, api: LocalApi) -> None:
    result = online.run(DAY, fetch=Fetch.auto, selection=EVERY)
    assert result.success
    assert online.materialized("models") == {str(DAY)}
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "catalogue_is_valid"]
    assert check.passed
    found = str(check.metadata["leaderboard"].value)
    assert found.split()[0] == found.split()[2]
    (request,) = api.catalogue_requests
    assert request.headers["Authorization"].startswith("Bearer ")
    again = online.run(DAY, selection=EVERY)  # the UI then shows the catalogue's names
    (event,) = [
        one for one in again.get_asset_materialization_events() if one.asset_key == NAMES.asset("model_leaderboard")
    ]
    shown = event.materialization.metadata["top_10"]
    assert isinstance(shown, dg.TableMetadataValue)
    names = {one["name"].partition(": ")[2] for one in json.loads(sample_catalogue(DAY))["data"]}
    assert {record.data["model"] for record in shown.records} <= names
    before = online.warehouse.read("models")
    rebuild(online.archive, online.warehouse, now=NOON)
    assert online.warehouse.read("models").equals(before)
    assert not before.is_empty()


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize(
    "reply",
    [Reply(b"busy", 404), Reply(b"[]"), sample_catalogue(DAY, change=lambda models: models.append(models[0]))],
    ids=["not found", "not a catalogue", "rejected"],
)
def test_a_catalogue_that_fails_delays_and_fails_no_day(online: World, api: LocalApi, reply: Reply | bytes) -> None:
    api.serve_catalogue(reply)
    assert online.run(DAY, fetch=Fetch.auto, selection=EVERY).success
    assert online.materialized("model_leaderboard") == {str(DAY)}
    assert online.materialized("models") == set()
    assert online.warehouse.read("models").is_empty()
    wanted = dg.AssetRecordsFilter(asset_key=NAMES.asset("raw_models"))
    (record, *_) = online.instance.fetch_observations(wanted, limit=1).records
    assert record.asset_observation is not None
    assert record.asset_observation.metadata["error"].value
    failure_of(online.run(DAY, fetch=Fetch.auto, selection=["raw_models", "models"]))


@pytest.mark.usefixtures("at_noon")
def test_a_rejected_day_of_classifications_does_not_keep_the_catalogue_away(online: World, api: LocalApi) -> None:
    api.serve(sample_response(DAY, change=lambda data: data.update(window_days=1)))
    assert not online.run(DAY, fetch=Fetch.auto, selection=EVERY).success
    assert online.materialized("model_leaderboard") == set()
    assert online.materialized("models") == {str(DAY)}
