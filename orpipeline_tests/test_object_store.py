"""An archive in an object store loses nothing when the store or the network fails, and needs few requests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path

import pytest

from orpipeline.archive import objects
from orpipeline.archive.archive import Archive
from orpipeline.archive.records import ArchiveError, Record
from orpipeline.archive.spool import waiting
from orpipeline.capture import Fetch, capture
from orpipeline.importing.discover import find_files
from orpipeline.importing.importer import import_files
from orpipeline.openrouter.client import Client, open_client
from orpipeline.settings import Settings
from orpipeline.snapshot import validate_days
from orpipeline.stores import StoreError, StoreUnreachableError, open_store
from orpipeline.testing import LocalApi, fixed_clock, sample_answer
from orpipeline.testing.local_api import KEY, Reply
from orpipeline_tests import raw
from orpipeline_tests.faulty_store import FaultyStore
from orpipeline_tests.servers import S3Server, free_port

DAY = date(2026, 10, 6)
FETCHED = datetime(2026, 10, 7, 0, 20, 3, tzinfo=UTC)
NOW = datetime(2026, 10, 7, 12, tzinfo=UTC)
FIRST, RESTATED = sample_answer(DAY), sample_answer(DAY) + b" "
ANSWER, RECORD = r"PUT .*/r1/task_classifications\.json\.gz", r"PUT .*/r1/record\.json"


@pytest.fixture
def proxy(s3_server: S3Server, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """A proxy between the archive and the bucket's server."""
    del archive  # it is opened by its first request, after this has set the endpoint
    with FaultyStore(s3_server.port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        yield between


@pytest.fixture
def archive(bucket: str) -> Archive:
    return Archive(f"{bucket}/raw")


def put(archive: Archive, body: bytes = FIRST, minutes: float = 0) -> Record:
    at = FETCHED + timedelta(minutes=minutes)
    return archive.put(body, fetched_at=at, source="https://api.test/x", origin="api").record


def assert_only(archive: Archive, *answers: bytes) -> None:
    """The day has these revisions, each with its record and nothing beside them."""
    assert [archive.read(record) for record in archive.revisions(DAY)] == list(answers)
    names = ("record.json", "task_classifications.json.gz")
    expected = {f"2026-10-06/r{n}/{name}" for n in range(1, len(answers) + 1) for name in names}
    assert {path for path in raw.files(archive.root) if path != ".orpipeline"} == expected
    assert archive.leftovers() == []


WRITE = """
import sys
from datetime import datetime
from orpipeline.archive.archive import Archive
for body in sys.stdin.buffer.read().split(b"|"):
    Archive(sys.argv[1]).put(
        body, fetched_at=datetime.fromisoformat(sys.argv[2]), source="https://api.test/x", origin="api"
    )
"""


def writer(archive: Archive, *answers: bytes) -> subprocess.Popen[bytes]:
    """Start a process that archives some answers."""
    command = [sys.executable, "-c", WRITE, str(archive.root), FETCHED.isoformat()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"|".join(answers))
    process.stdin.close()
    return process


# Transfers that fail


@pytest.mark.parametrize("fault", ["drop", "swallow", "503"])
@pytest.mark.parametrize("request_", [ANSWER, RECORD], ids=["answer", "record"])
def test_an_upload_that_is_cut_off_or_unanswered_is_repeated_and_stored_once(
    archive: Archive, proxy: FaultyStore, fault: str, request_: str
) -> None:
    proxy.fail(fault, request_)
    record = put(archive)
    assert record.revision == 1
    assert_only(archive, FIRST)


@pytest.mark.parametrize("complete", ["put", "adopt"])
def test_an_answer_without_its_record_is_completed_with_the_record_it_was_to_have(
    archive: Archive, proxy: FaultyStore, complete: str
) -> None:
    written = put(Archive(f"{archive.root}-2"))
    proxy.fail("503", RECORD, times=100)
    with pytest.raises(StoreUnreachableError, match=r"HTTP 503") as caught:
        put(archive)
    assert "\n" not in str(caught.value)
    proxy.recover()
    assert (archive.days(), archive.has(DAY), archive.day(DAY).damaged) == ([], False, {})
    assert archive.leftovers() == [f"{archive.root}/2026-10-06/r1/task_classifications.json.gz"]
    if complete == "put":
        assert put(archive, RESTATED, minutes=5).revision == 2
        assert_only(archive, FIRST, RESTATED)
    else:
        assert [record.revision for record in archive.adopt()] == [1]
        assert_only(archive, FIRST)
    completed = archive.record(f"{archive.root}/2026-10-06/r1")
    assert raw.read(raw.record_file(completed.path)) == raw.read(raw.record_file(written.path))


def test_a_process_that_is_killed_between_answer_and_record_loses_nothing(archive: Archive, proxy: FaultyStore) -> None:
    def kill(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("record.json"):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    proxy.before = kill
    process = writer(archive, FIRST)
    assert process.wait(60) == -signal.SIGKILL
    proxy.before = lambda _method, _path: None
    archive.adopt()
    assert_only(archive, FIRST)


def test_a_source_that_is_too_long_for_metadata_keeps_its_end(archive: Archive) -> None:
    source = "\u00e9" * 3000 + "/answer.json"
    stored = archive.put(FIRST, fetched_at=FETCHED, source=source, origin="import").record
    (record,) = Archive(archive.root).revisions(DAY)
    assert record == stored
    assert record.source.endswith("/answer.json")


# Several writers


def test_processes_that_archive_different_and_the_same_answers_lose_none(archive: Archive) -> None:
    answers = {space: [FIRST + space * n for n in range(1, 4)] for space in (b" ", b"\n")}
    processes = [writer(archive, *answers[space]) for space in (b" ", b" ", b"\n")]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    revisions = archive.revisions(DAY)
    assert sorted(archive.read(record) for record in revisions) == sorted(chain(*answers.values()))
    assert sorted(record.revision for record in revisions) == list(range(1, 7))


def test_a_damaged_answer_that_another_process_restores_meanwhile_is_not_set_aside(archive: Archive) -> None:
    record = put(archive)
    raw.write(record.path, b"damaged")
    storage = objects.ObjectStorage(str(archive.root))
    read = storage._get_raw

    def restored_after(key: str) -> tuple[bytes | None, str | None]:
        found = read(key)
        if key.endswith(".gz") and found[0] == b"damaged":
            put(archive, minutes=5)
        return found

    storage._get_raw = restored_after  # type: ignore[method-assign] # another process between two steps
    assert storage.set_aside(DAY, 1, NOW) is None
    assert archive.read(record) == FIRST
    assert archive.revisions(DAY) == [record]


# How many requests


def test_a_year_is_listed_with_one_request_and_read_with_one_for_each_file(
    archive: Archive, proxy: FaultyStore, tmp_path: Path
) -> None:
    days = [DAY - timedelta(days=n) for n in range(20)]  # S3 lists 1,000 objects, so 500 days, in a request
    for day in days:
        (tmp_path / f"{day}.json").write_bytes(sample_answer(day))
    imported = import_files(archive, find_files([str(tmp_path)]), first=days[-1], newest=DAY)
    assert len(imported.new) == len(days)
    assert len(proxy.requests) <= 3 * len(days)
    proxy.requests.clear()
    reader = Archive(archive.root)
    assert (reader.days(), reader.first_day(), reader.has(DAY)) == (sorted(days), days[-1], True)
    assert (reader.has_any(days), reader.leftovers(), len(reader.folders())) == (True, [], len(days))
    assert len(proxy.requests) == 6
    proxy.requests.clear()
    assert len(validate_days(reader, days, now=NOW).chosen) == len(days)
    assert len(proxy.requests) <= 1 + 2 * len(days)
    proxy.requests.clear()
    assert len(reader.days_of(days)) == len(days)
    assert len(proxy.requests) == 1  # the records are known


def test_many_answers_are_read_at_once(archive: Archive, proxy: FaultyStore) -> None:
    records = [put(archive, FIRST + b" " * n) for n in range(8)]
    proxy.before = lambda _method, _path: time.sleep(0.25)
    began = time.monotonic()
    assert len(list(archive.read_all(records))) == 8
    assert time.monotonic() - began < 8 * 0.25


def test_a_dry_run_leaves_the_store_unchanged(archive: Archive, tmp_path: Path) -> None:
    put(archive)
    before = raw.files(archive.root)
    (tmp_path / "a.json").write_bytes(FIRST)
    (tmp_path / "b.json").write_bytes(sample_answer(DAY - timedelta(days=1)))
    files = find_files([str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    imported = import_files(archive, files, first=DAY - timedelta(days=9), newest=DAY, dry_run=True)
    assert (imported.same, imported.new) == ([DAY], [DAY - timedelta(days=1)])
    assert raw.files(archive.root) == before


# The spool


@pytest.fixture
def client(api: LocalApi, tmp_path: Path) -> Client:
    return open_client(Settings(data_dir=tmp_path / "data", base_url=api.base_url), KEY)


def captured(client: Client, archive: Archive, fetch: Fetch, spool: Archive, *, days: int = 0) -> Record | None:
    """Run `capture` at noon, for the newest day; `days` later than the others."""
    now = NOW + timedelta(days=days)
    with fixed_clock(now):
        return capture(client, archive, [DAY + timedelta(days=days)], fetch, now, spool=spool)


@pytest.fixture
def spool(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "data" / "spool")


def test_an_answer_waits_in_the_spool_if_the_store_fails_after_the_fetch(
    archive: Archive, proxy: FaultyStore, api: LocalApi, client: Client, spool: Archive
) -> None:
    api.serve(FIRST)
    proxy.fail("503", ANSWER, times=100)
    with pytest.raises(StoreUnreachableError, match=r"waits in .*/spool/2026-10-06/r1") as caught:
        captured(client, archive, Fetch.auto, spool)
    assert "\n" not in str(caught.value)
    (record,) = waiting(spool)
    assert (archive.days(), record.origin, record.source) == ([], "api", client.url)
    with pytest.raises(StoreUnreachableError):  # the store still fails
        captured(client, archive, Fetch.auto, spool)
    proxy.recover()
    assert captured(client, archive, Fetch.auto, spool) is None
    assert len(api.requests) == 1
    assert_only(archive, FIRST)
    (archived,) = archive.revisions(DAY)
    assert (archived.fetched_at, archived.source) == (record.fetched_at, record.source)
    assert waiting(spool) == []
    assert captured(client, archive, Fetch.never, spool) is None
    assert_only(archive, FIRST)


@pytest.mark.parametrize("fetch", [Fetch.auto, pytest.param(Fetch.always, marks=pytest.mark.slow)])
def test_during_an_outage_the_newest_day_is_fetched_once_and_archived_afterwards(
    archive: Archive, proxy: FaultyStore, api: LocalApi, client: Client, spool: Archive, fetch: Fetch
) -> None:
    before = sample_answer(DAY - timedelta(days=1))
    api.serve(before, FIRST)
    captured(client, archive, Fetch.auto, spool, days=-1)
    proxy.fail("503", ".", times=1000)
    for _ in range(2):
        with pytest.raises(StoreUnreachableError, match=r"The answer for 2026-10-06 waits in"):
            captured(client, archive, fetch, spool)
    with pytest.raises(StoreUnreachableError, match=r"Try again later.$"):
        captured(client, archive, Fetch.never, spool)
    assert len(api.requests) == 2
    proxy.recover()
    assert captured(client, archive, Fetch.auto, spool) is None
    assert len(api.requests) == 2
    assert [archive.read(record) for record in archive.revisions(DAY)] == [FIRST]
    assert archive.days() == [DAY - timedelta(days=1), DAY]


def test_an_unreadable_answer_waits_too(
    archive: Archive, proxy: FaultyStore, api: LocalApi, client: Client, spool: Archive
) -> None:
    api.serve(Reply(b"<html>busy</html>", 200))
    proxy.fail("503", r"PUT .*/undated/", times=100)
    with pytest.raises(StoreError, match=r"The answer waits in .*/spool/undated/"):
        captured(client, archive, Fetch.auto, spool)
    proxy.recover()
    captured(client, archive, Fetch.never, spool)
    (place,) = archive.folders()
    assert archive.read(archive.record(place)) == b"<html>busy</html>"
    assert waiting(spool) == []


def test_a_folder_that_does_not_take_an_answer_gets_it_later_and_other_days_do_not_wait(
    api: LocalApi, client: Client, spool: Archive, tmp_path: Path
) -> None:
    root = tmp_path / "other disk"
    root.mkdir()
    (root / "2026-10-06").write_text("in the way")
    archive = Archive(root)
    api.serve(FIRST, sample_answer(DAY + timedelta(days=1)))
    with pytest.raises(ArchiveError, match=r"waits in .*/spool/2026-10-06/r1"):
        captured(client, archive, Fetch.auto, spool)
    shutil.rmtree(next(root.glob(".writing-*")))  # the disk is another one now
    assert captured(client, archive, Fetch.auto, spool, days=1) is not None
    with pytest.raises(ArchiveError, match=r"waits in .*/spool/2026-10-06/r1"):
        captured(client, archive, Fetch.auto, spool)  # without another request
    assert archive.days() == [DAY + timedelta(days=1)]
    (root / "2026-10-06").unlink()
    captured(client, archive, Fetch.never, spool, days=1)
    assert archive.days() == [DAY, DAY + timedelta(days=1)]
    assert (waiting(spool), len(api.requests)) == ([], 2)


# Wrong settings


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
def test_a_store_with_wrong_settings_is_named_in_one_line_before_anything_is_fetched(
    archive: Archive,
    proxy: FaultyStore,
    api: LocalApi,
    client: Client,
    spool: Archive,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    message: str,
) -> None:
    if case == "no bucket":
        archive = Archive("s3://nowhere/raw")
    elif case == "not writable":
        proxy.fail("403", "PUT ", times=100)
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
    assert (api.requests, waiting(spool)) == ([], [])


@pytest.mark.slow
def test_a_store_that_does_not_answer_fails_in_seconds(archive: Archive, s3_server: S3Server) -> None:
    s3_server.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnreachableError, match="did not answer in time"):
            archive.days()
        assert time.monotonic() - began < 25
    finally:
        s3_server.thaw()


def test_without_obstore_the_extra_is_named(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(
        StoreError, match=r"ORPIPELINE_ARCHIVE is an object store.* install `orpipeline\[object-store\]`"
    ):
        archive.days()


@pytest.mark.parametrize("url", ["s3://bucket/raw", "gs://bucket/raw", "az://container/raw"])
def test_a_test_reaches_no_other_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(Exception, match="A test would have sent a request to"):
        open_store(url, setting="ORPIPELINE_ARCHIVE")


def test_a_folder_needs_no_object_store() -> None:
    code = """
import sys
from pathlib import Path
import orpipeline.capture
from orpipeline.archive.archive import Archive
Archive(Path(sys.argv[1])).days()
print([name for name in ("obstore", "psycopg", "orpipeline.archive.objects") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, "/nowhere"], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
