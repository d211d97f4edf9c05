"""What `orpipeline doctor` shows about the places of a pipeline's parts, on this machine and beyond it."""

from __future__ import annotations

from pathlib import Path

import pytest
from obstore.store import S3Store

from orpipeline import postgres
from orpipeline.archive import Archive
from orpipeline.cli.survival import contradiction, parts
from orpipeline.settings import Settings
from orpipeline.testing import sample_response
from orpipeline_tests.responses import DAY
from orpipeline_tests.servers import PostgresServer, S3Server, free_port
from orpipeline_tests.test_doctor import doctor, rows, survival_rows, verdict
from orpipeline_tests.world import NOON, World

pytestmark = pytest.mark.usefixtures("at_noon")
LAKE = "ducklake:postgres:dbname=lake host=db.example"


@pytest.fixture(autouse=True)
def _own_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")


def survivors(settings: Settings) -> dict[str, bool]:
    return {part.name: part.survives for part in parts(settings)}


def test_with_the_defaults_everything_is_lost_with_this_machine(world: World) -> None:
    shown = survival_rows(doctor(world, environment={"DAGSTER_HOME": ""}))
    assert [name for name, value in shown.items() if value.startswith("lost ")] == [
        "archive",
        "warehouse",
        "budget",
        "reports",
        "Dagster's runs",
    ]
    assert shown["archive"].endswith(str(world.folder / "raw"))


def test_what_is_beyond_this_machine_survives(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        archive="s3://bucket/raw",
        warehouse=LAKE,
        lake_data="s3://bucket/lake",
        state="postgresql://user@db.example/budget",
        reports="gs://bucket/reports",
    )
    beyond = survivors(settings)
    assert [name for name, survives in beyond.items() if not survives] == ["Dagster's runs", "spool"]
    assert {part.name: part.place for part in parts(settings)}["budget"] == "Postgres at db.example/budget"


def test_an_address_of_ipv6_is_apart_from_its_port() -> None:
    shown = postgres.place("postgresql://[2001:db8::1]:5433/budget", setting="ORPIPELINE_STATE")
    assert shown == "Postgres at [2001:db8::1]:5433/budget"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "%2Fvar%2Frun%2Fpostgresql"])
def test_servers_on_this_machine_do_not_survive_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    settings = Settings(data_dir=tmp_path, archive="s3://bucket/raw", state=f"postgresql://{host}/budget")
    assert not any(survivors(settings).values())
    assert contradiction(parts(settings)) is None


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ("storage: {postgres: {postgres_db: {hostname: {env: RUNS_HOST}, db_name: runs}}}", "db.example/runs"),
        ("storage: {postgres: {postgres_url: {env: RUNS_URL}}}", "db.example/runs"),
        (
            "run_storage: {module: dagster_postgres.run_storage, config: {postgres_db: {hostname: db.example, "
            "db_name: runs}}}",
            "db.example/runs",
        ),
        ("storage: {postgres: {postgres_db: {hostname: {env: UNSET}, db_name: runs}}}", "$UNSET/runs"),
        ("storage: {sqlite: {base_dir: x}}", None),
        ("[", None),
    ],
    ids=["parts", "URL", "older", "unset", "SQLite", "damaged"],
)
def test_dagsters_storage_is_found_in_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, place: str | None
) -> None:
    monkeypatch.setenv("RUNS_HOST", "db.example")
    monkeypatch.setenv("RUNS_URL", "postgresql://user:secret@db.example:5432/runs")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(config)
    (dagster,) = [part for part in parts(Settings(data_dir=tmp_path)) if part.name == "Dagster's runs"]
    assert (dagster.place, dagster.survives) == ((f"Postgres at {place}", True) if place else (str(tmp_path), False))


def test_what_several_hosts_could_not_share_is_a_warning(tmp_path: Path) -> None:
    lake_in_a_folder = Settings(
        data_dir=tmp_path, archive="s3://bucket/raw", warehouse=LAKE, reports="s3://bucket/reports"
    )
    assert contradiction(parts(lake_in_a_folder)) == (
        "other hosts can use warehouse, but only this machine has lake's files, budget, Dagster's runs: for several "
        "hosts, also set ORPIPELINE_LAKE_DATA, ORPIPELINE_STATE, the storage in $DAGSTER_HOME/dagster.yaml, or share "
        "the folders"
    )
    # One host that keeps its archive safe contradicts nothing.
    assert contradiction(parts(Settings(data_dir=tmp_path, archive="s3://bucket/raw"))) is None


def test_a_store_and_a_database_are_checked_and_nothing_is_changed(
    world: World, bucket: str, s3_server: S3Server, postgres_server: PostgresServer, database: str
) -> None:
    Archive(f"{bucket}/raw").put(sample_response(DAY), fetched_at=NOON, source="a test", origin="import")
    store = S3Store.from_url(bucket, client_options={"allow_http": True})
    before = [one["e_tag"] for one in store.list().collect()]
    done = doctor(
        world,
        environment={
            "ORPIPELINE_ARCHIVE": f"{bucket}/raw",
            "ORPIPELINE_REPORTS": f"{bucket}/reports",
            "ORPIPELINE_STATE": postgres_server.url(database),
            **s3_server.environment(),
        },
    )
    assert verdict(done) == (0, "Works, with 1 warning: 1 archived day is not in the tables: use `orpipeline rebuild`.")
    shown = rows(done)
    assert shown["archive"] == f"{bucket}/raw: 1 day, 2026-10-06"
    assert "0 of 30 in the last minute, 0 of 500" in shown["requests"]
    assert shown["budget"].startswith(f"Postgres at 127.0.0.1:{postgres_server.port}/{database}: ")
    assert [one["e_tag"] for one in store.list().collect()] == before
    assert postgres_server.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'orpipeline'", database) == "0"
    assert not world.folder.exists()


@pytest.mark.parametrize(
    ("setting", "row", "expected"),
    [
        ("ARCHIVE", "archive", "the bucket nowhere does not exist"),
        ("REPORTS", "published", "the bucket nowhere does not exist"),
        ("STATE", "requests", "Connection refused. Check that it is running, ORPIPELINE_STATE, and"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line_and_the_rest_is_shown(
    world: World, s3_server: S3Server, setting: str, row: str, expected: str
) -> None:
    place = f"postgresql://127.0.0.1:{free_port()}/x" if setting == "STATE" else "s3://nowhere/x"
    done = doctor(world, environment={f"ORPIPELINE_{setting}": place, **s3_server.environment()})
    code, line = verdict(done)
    assert code == 1
    assert line.count("the reason is above") == 1
    assert expected in rows(done)[row]
    others = {"archive": "0 days", "warehouse": "0 days", "requests": "0 of 30"}
    assert all(value in rows(done)[name] for name, value in others.items() if name != row)


def test_a_response_that_waits_for_the_archive_is_a_warning(world: World) -> None:
    Archive(world.settings.spool).put(sample_response(DAY), fetched_at=NOON, source="a test", origin="api")
    done = doctor(world)
    assert "1 response waits on this machine for the archive" in verdict(done)[1]
    assert rows(done)["spool"].endswith("1 response waits for the archive, of days 1: 2026-10-06")
