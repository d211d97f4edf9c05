"""An archive in an object store loses nothing when the store or the network fails, and needs few requests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from orpipeline.archive import Archive, Revision
from orpipeline.capture import Fetch, capture
from orpipeline.errors import NextAttempt, SettingsError, StoreError
from orpipeline.load import validate_days
from orpipeline.openrouter.client import Client, open_client
from orpipeline.settings import Settings
from orpipeline.stores import Store
from orpipeline.testing import LocalApi, fixed_clock, sample_response
from orpipeline.testing.local_api import KEY
from orpipeline_tests.raw import files
from orpipeline_tests.servers import S3Server, free_port
from orpipeline_tests.store_proxy import Fault, StoreProxy

DAY = date(2026, 10, 6)
FETCHED = datetime(2026, 10, 7, 0, 20, 3, tzinfo=UTC)
NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)
FIRST = sample_response(DAY)
UPLOAD = r"PUT .*-api\.json\.gz"


@pytest.fixture
def archive(bucket: str) -> Archive:
    return Archive(f"{bucket}/raw")


@pytest.fixture
def proxy(s3_server: S3Server, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreProxy]:
    """A proxy between the archive and the bucket's server."""
    del archive  # it is opened by its first request, after this has set the endpoint
    with StoreProxy(s3_server.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        yield between


def put(archive: Archive, body: bytes = FIRST, minutes: float = 0) -> Revision:
    at = FETCHED + timedelta(minutes=minutes)
    return archive.put(body, fetched_at=at, source="https://api.test/x", origin="api").revision


def bodies(archive: Archive, day: date = DAY) -> list[bytes]:
    return [archive.read(one).body for one in archive.revisions(day)]


# Transfers


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["drop", "swallow", 503])
def test_an_upload_that_is_cut_off_or_gets_no_response_is_repeated_and_stored_once(
    archive: Archive, proxy: StoreProxy, fault: Fault
) -> None:
    proxy.fail(fault, UPLOAD)
    assert put(archive).number == 1
    assert (bodies(archive), len(files(archive))) == ([FIRST], 1)


@pytest.mark.slow
def test_a_year_is_listed_with_one_request_and_read_with_one_for_each_file(archive: Archive, proxy: StoreProxy) -> None:
    days = [DAY - timedelta(days=n) for n in range(20)]  # S3 lists 1,000 objects in a request
    for day in days:
        archive.put(sample_response(day), fetched_at=None, source="a test", origin="import")
    assert len(proxy.requests) <= 3 * len(days)
    proxy.requests.clear()
    reader = Archive(archive.place)
    assert (reader.days(), len(reader.all())) == (sorted(days), len(days))
    assert len(proxy.requests) == 3  # `all` also lists those that belong to no day
    proxy.requests.clear()
    assert len(validate_days(reader, days, now=NOON).chosen) == len(days)
    assert len(proxy.requests) == 1 + len(days)


# The spool


@pytest.fixture
def client(api: LocalApi, tmp_path: Path) -> Client:
    return open_client(Settings(data_dir=tmp_path / "data", base_url=api.base_url), KEY)


@pytest.fixture
def spool(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "data" / "spool")


def captured(client: Client, archive: Archive, fetch: Fetch, spool: Archive, *, days: int = 0) -> Revision | None:
    """Run `capture` at noon, for the newest day; `days` later than the others."""
    now = NOON + timedelta(days=days)
    with fixed_clock(now):
        return capture(client, archive, [DAY + timedelta(days=days)], fetch, now, spool=spool)


@pytest.mark.slow
def test_a_response_waits_in_the_spool_if_the_store_fails_after_the_fetch(
    archive: Archive, proxy: StoreProxy, api: LocalApi, client: Client, spool: Archive
) -> None:
    api.serve(FIRST)
    proxy.fail(503, UPLOAD, times=100)
    for _ in range(2):  # the second call delivers, and the store still fails
        with pytest.raises(StoreError, match=r"HTTP 503.*waits in .*/spool/.*/2026-10-06/2026") as caught:
            captured(client, archive, Fetch.auto, spool)
        assert "\n" not in str(caught.value)
        assert caught.value.next_attempt is NextAttempt.TRANSIENT
    (waiting,) = spool.all()
    assert (archive.days(), waiting.origin, spool.read(waiting).source) == ([], "api", client.url)
    proxy.recover()
    assert captured(client, archive, Fetch.auto, spool) is None
    assert len(api.requests) == 1
    (archived,) = archive.revisions(DAY)
    assert (archived.name, archive.read(archived).source, spool.all()) == (waiting.name, client.url, [])
    assert captured(client, archive, Fetch.never, spool) is None
    assert bodies(archive) == [FIRST]


def test_a_folder_that_does_not_take_a_response_gets_it_later(
    api: LocalApi, client: Client, spool: Archive, tmp_path: Path
) -> None:
    archive, in_the_way = Archive(tmp_path / "disk"), tmp_path / "disk" / "task_classifications" / "2026-10-06"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("in the way")
    api.serve(FIRST, sample_response(DAY + timedelta(days=1)))
    for days in (0, 1):
        with pytest.raises(StoreError, match=rf"Cannot write .*waits in .*/spool/.*/2026-10-0{6 + days}/"):
            captured(client, archive, Fetch.auto, spool, days=days)
    in_the_way.unlink()
    captured(client, archive, Fetch.never, spool, days=1)
    assert archive.days() == [DAY, DAY + timedelta(days=1)]
    assert (spool.all(), len(api.requests)) == ([], 2)


# Wrong settings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no bucket", r"the bucket nowhere does not exist \(HTTP 404 NoSuchBucket\)"),
        ("not writable", r"Cannot write s3://.*: access denied \(HTTP 403"),
        ("unreachable", r"it cannot be reached"),
        ("http", r"Set AWS_ALLOW_HTTP=true"),
        ("no secret", r"Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_store_with_wrong_settings_is_named_in_one_line_and_the_day_is_not_lost(
    archive: Archive,
    proxy: StoreProxy,
    api: LocalApi,
    client: Client,
    spool: Archive,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    message: str,
) -> None:
    api.serve(FIRST)
    if case == "no bucket":
        archive = Archive("s3://nowhere/raw")
    elif case == "not writable":
        proxy.fail(403, "PUT ", times=100)
    elif case == "unreachable":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    elif case == "http":
        monkeypatch.delenv("AWS_ALLOW_HTTP")
    else:
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match=message) as caught:
        captured(client, archive, Fetch.auto, spool)
    text = str(caught.value)
    assert "ORPIPELINE_ARCHIVE" in text
    assert "\n" not in text
    assert S3Server.SECRET not in text
    assert caught.value.next_attempt is (NextAttempt.TRANSIENT if case == "unreachable" else NextAttempt.NEEDS_PERSON)
    assert (len(api.requests), bodies(spool)) == (1, [FIRST])


@pytest.mark.parametrize("url", ["s3://bucket/raw", "gs://bucket/raw", "az://container/raw"])
def test_a_test_reaches_no_other_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(SettingsError, match="A test would have sent a request to"):
        Store(url, setting="ORPIPELINE_ARCHIVE").entries("-")
