"""The archive loses nothing, overwrites nothing and detects damage, on a real disk and in an object store.

Tests with the fixture `archive` run on both; those with `folder` are about files.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import chain
from pathlib import Path

import duckdb
import pytest

from orpipeline.archive import Archive, Content, Revision, Stored, named
from orpipeline.errors import DamagedResponseError, StoreError
from orpipeline.testing import sample_response
from orpipeline_tests.raw import change, files

DAY, NEXT = date(2026, 10, 6), date(2026, 10, 7)
FETCHED = datetime(2026, 10, 7, 0, 20, 3, tzinfo=UTC)
URL = "https://api.test/x"
FIRST = sample_response(DAY)
RESTATED = FIRST.replace(b'"usage_share":0.', b'"usage_share":0.0', 1)
HTML = b"<html>busy</html>"


@pytest.fixture(params=["folder", pytest.param("objects", marks=pytest.mark.slow)])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    if request.param == "folder":
        return Archive(tmp_path / "raw")
    return Archive(f"{request.getfixturevalue('bucket')}/raw")


@pytest.fixture
def folder(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "raw")


def put(archive: Archive, body: bytes, minutes: float | None = 0, origin: str = "api") -> Stored:
    """Archive a response that was fetched some minutes after the first one, or at an unknown time."""
    at = None if minutes is None else FETCHED + timedelta(minutes=minutes)
    return archive.put(body, fetched_at=at, source=URL, origin=origin)


def bodies(archive: Archive) -> list[bytes]:
    return [archive.read(one).body for one in archive.revisions(DAY)]


def aside(archive: Archive) -> list[bytes]:
    """Return the content of the files that were renamed because they are damaged."""
    return [content for name, content in files(archive).items() if ".json.gz.damaged" in name]


def path_of(revision: Revision) -> Path:
    assert isinstance(revision.path, Path)
    return revision.path


# Revisions


def test_an_archived_response_is_read_back_with_what_its_name_says(archive: Archive) -> None:
    east = FETCHED.astimezone(timezone(timedelta(hours=9))).replace(microsecond=123456)
    stored = archive.put(FIRST, fetched_at=east, source=URL, origin="api")
    one = stored.revision
    assert stored.new
    assert (one.as_of, one.number, one.fetched_at, one.origin) == (DAY, 1, FETCHED, "api")
    assert one.name == f"task_classifications/2026-10-06/20261007T002003Z-{one.digest}-api.json.gz"
    assert str(one.path) == f"{archive.place}/{one.name}"
    assert list(files(archive)) == [one.name]
    assert Archive(archive.place).revisions(DAY) == [one]
    content = archive.read(one)
    assert (content, content.sha256[:16]) == (Content(FIRST, URL), one.digest)


@pytest.mark.parametrize("minutes", [0, -5, 3])
def test_the_same_bytes_again_add_nothing_before_and_after_a_restatement(archive: Archive, minutes: float) -> None:
    first = put(archive, FIRST).revision
    assert put(archive, FIRST, minutes) == Stored(first, new=False)
    put(archive, RESTATED, minutes=5)
    before = files(archive)
    assert put(archive, FIRST, minutes) == Stored(first, new=False)
    assert files(archive) == before
    assert bodies(archive) == [FIRST, RESTATED]


def test_figures_that_change_and_change_back_become_three_revisions(archive: Archive) -> None:
    for minutes, body in enumerate((FIRST, RESTATED, FIRST)):
        before = files(archive)
        assert put(archive, body, minutes).revision.number == minutes + 1
        assert before.items() <= files(archive).items()
    assert bodies(archive) == [FIRST, RESTATED, FIRST]


def test_a_revisions_number_is_its_place_in_the_order_of_fetch_times(archive: Archive) -> None:
    put(archive, FIRST)
    put(archive, RESTATED, minutes=-5)
    assert bodies(archive) == [RESTATED, FIRST]
    assert [one.number for one in archive.revisions(DAY)] == [1, 2]
    assert archive.latest(DAY) == archive.revisions(DAY)[-1]


def test_a_response_with_an_unknown_fetch_time_never_comes_after_one_with_a_known_time(archive: Archive) -> None:
    put(archive, FIRST)
    imported = put(archive, RESTATED, minutes=None, origin="import").revision
    assert (imported.number, imported.fetched_at) == (1, None)
    assert f"/unknown-{imported.digest}-import.json.gz" in imported.name
    assert bodies(archive) == [RESTATED, FIRST]
    assert not put(archive, FIRST, minutes=None, origin="import").new  # it is compared with all of the day's
    fetched = put(archive, RESTATED, minutes=90)
    assert (fetched.new, bodies(archive)) == (True, [RESTATED, FIRST, RESTATED])


def test_a_response_that_was_imported_and_is_then_fetched_has_the_time_of_the_fetch(archive: Archive) -> None:
    put(archive, FIRST, minutes=None, origin="import")
    fetched = put(archive, FIRST, minutes=90).revision
    assert archive.revisions(DAY) == [fetched]
    assert (fetched.number, fetched.fetched_at, fetched.origin) == (1, FETCHED + timedelta(minutes=90), "api")


@pytest.mark.parametrize("same_content", [False, True])
def test_an_import_of_the_same_json_in_other_bytes_is_the_same_response(archive: Archive, same_content: bool) -> None:
    put(archive, FIRST)
    other = json.dumps(json.loads(FIRST), indent=1, sort_keys=True).encode()
    at = FETCHED + timedelta(minutes=5)
    stored = archive.put(other, fetched_at=at, source="a.json", origin="import", same_content=same_content)
    assert stored.new != same_content


def test_days_are_returned_oldest_first_and_an_older_one_may_be_imported(archive: Archive) -> None:
    days = [DAY, date(2020, 2, 29), date(2025, 12, 31)]
    for day in days:
        put(archive, sample_response(day), minutes=None, origin="import")
    put(archive, HTML)
    assert archive.days() == sorted(days)
    assert [one.as_of for one in archive.all()] == [*sorted(days), None]
    assert {day: len(of_day) for day, of_day in archive.revisions_of([DAY, NEXT]).items()} == {DAY: 1, NEXT: 0}


def test_readers_create_nothing(archive: Archive, tmp_path: Path) -> None:
    assert (archive.days(), archive.all(), archive.revisions(DAY), archive.latest(DAY)) == ([], [], [], None)
    assert not archive.is_current(DAY)
    assert list(tmp_path.iterdir()) == []


def test_files_with_other_names_are_no_responses(folder: Archive) -> None:
    one = put(folder, FIRST).revision
    for name in ("notes.txt", "20261007T002003Z-x-api.json.gz", "20269999T002003Z-3e39cf29aaa678ff-api.json.gz"):
        path_of(one).with_name(name).write_bytes(path_of(one).read_bytes())
        assert named(f"2026-10-06/{name}") is None
    assert named(one.name.replace("2026-10-06", "2026-02-30")) is None
    assert folder.revisions(DAY) == [one]


# Undated responses


def with_as_of(as_of: object) -> bytes:
    return json.dumps({"data": {"as_of": as_of}}).encode()


UNREADABLE_DAYS = ("../../x", "/tmp/x", "20261006", "2026-02-30", "2026-10-06\n", "\uff12\uff10\uff12\uff16-10-06")
IMPOSSIBLE_DAYS = ("2026-10-07", "2099-01-01", "1900-01-01", "9999-12-31", "0001-01-01", "2026-09-05")


@pytest.mark.parametrize(
    "body",
    [
        *map(with_as_of, (*UNREADABLE_DAYS, "undated", None, 20261006, *IMPOSSIBLE_DAYS)),
        *(b"<html>", b"", b'{"data":[]}', b"\xff\x00", b"[" * 100_000),
    ],
)
def test_a_response_without_a_day_that_the_api_can_serve_is_undated_and_nowhere_else(
    folder: Archive, tmp_path: Path, body: bytes
) -> None:
    stored = put(folder, body)
    one = stored.revision
    assert (stored.new, one.as_of, one.number, folder.days()) == (True, None, 0, [])
    assert folder.read(one).body == body
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [path_of(one)]
    assert path_of(one).parent == tmp_path / "raw" / "task_classifications" / "undated"


def test_an_undated_response_is_stored_once_and_again_if_it_is_damaged(archive: Archive) -> None:
    first = put(archive, HTML).revision
    assert put(archive, HTML, minutes=5) == Stored(first, new=False)
    assert put(archive, b"<html>other</html>", minutes=5).new
    assert len(archive.all()) == 2
    change(archive, first, lambda _: b"")
    again = put(archive, HTML, minutes=9)
    assert (again.new, archive.read(again.revision).body) == (True, HTML)
    assert files(archive)[first.name] == b""


# Damage and repair


def packed(body: bytes) -> bytes:
    """Return a file as the archive writes it: gzip's header has the source's name."""
    file = io.BytesIO()
    with gzip.GzipFile("x", "wb", fileobj=file) as writer:
        writer.write(body)
    return file.getvalue()


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "cut off": lambda content: content[:-100],
    "without its end": lambda content: content[:-4],
    "empty": lambda _: b"",
    "unpacked": lambda _: FIRST,
    "other content": lambda _: packed(RESTATED),
    "more at the end": lambda content: content + b"more",
    "too large": lambda _: gzip.compress(FIRST + b" " * 30_000_000),
    "missing": lambda _: None,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_never_read_as_a_response(archive: Archive, damage: Callable[[bytes], bytes | None]) -> None:
    one, other = put(archive, FIRST).revision, put(archive, RESTATED, minutes=5).revision
    change(archive, one, damage)
    with pytest.raises(DamagedResponseError) as caught:
        archive.read(one)
    assert str(one.path) in str(caught.value)
    first, second = archive.read_all([one, other])
    assert isinstance(first, DamagedResponseError)
    assert second == Content(RESTATED, URL)


@pytest.mark.parametrize(("damage", "minutes"), [(DAMAGE["cut off"], 0), (DAMAGE["missing"], 60)])
def test_an_intact_response_of_the_day_sets_a_damaged_file_aside_and_deletes_nothing(
    archive: Archive, damage: Callable[[bytes], bytes | None], minutes: float
) -> None:
    change(archive, put(archive, FIRST).revision, damage)
    left = list(files(archive).values())
    assert not archive.is_current(DAY)
    stored = put(archive, FIRST, minutes)
    assert stored.new
    assert archive.revisions(DAY) == [stored.revision]
    assert (bodies(archive), aside(archive)) == ([FIRST], left)
    assert archive.is_current(DAY)


def test_another_response_sets_damaged_files_aside_too_and_numbers_close_up(archive: Archive) -> None:
    for minutes in (0, 1, 2):
        change(archive, put(archive, FIRST + b" " * minutes, minutes).revision, lambda _: b"{")
    fourth = put(archive, RESTATED, minutes=5).revision
    assert (archive.revisions(DAY), fourth.number, aside(archive)) == ([fourth], 1, [b"{"] * 3)
    change(archive, fourth, lambda _: b"")
    assert put(archive, RESTATED, minutes=5).new
    change(archive, fourth, lambda _: b"")
    put(archive, FIRST, minutes=9)
    assert (bodies(archive), aside(archive)) == ([FIRST], [b"{", b"{", b"{", b"", b""])


def test_a_file_that_cannot_be_read_now_is_not_damaged_and_stops_no_other(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(archive, FIRST).revision
    original = Archive.read

    def read(self: Archive, revision: Revision) -> Content:
        if revision.name == first.name:
            raise StoreError("Cannot read it: Input/output error.")
        return original(self, revision)

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "read", read)
        assert put(archive, RESTATED, minutes=5).new
    assert (bodies(archive), aside(archive)) == ([FIRST, RESTATED], [])


# Delivery to another archive


def test_a_response_is_delivered_with_all_that_its_name_says_and_once(archive: Archive, tmp_path: Path) -> None:
    spool = Archive(tmp_path / "spool")
    waiting = [put(spool, FIRST).revision, put(spool, HTML).revision]
    # One that had to be altered to remove the API key names a day, and belongs to none.
    waiting.append(spool.put_undated(RESTATED, fetched_at=FETCHED, source=URL, origin="api").revision)
    delivered = spool.deliver(archive)
    assert sorted(one.name for one in delivered) == sorted(files(archive)) == sorted(one.name for one in waiting)
    assert {archive.read(one) for one in delivered} == {Content(body, URL) for body in (FIRST, HTML, RESTATED)}
    assert (archive.days(), spool.all(), spool.deliver(archive)) == ([DAY], [], [])
    for body in (FIRST, HTML):
        put(spool, body, minutes=5)
    spool.deliver(archive)
    assert (len(files(archive)), spool.all()) == (3, [])


def test_a_delivered_response_sets_a_damaged_file_of_its_day_aside_and_a_damaged_one_stays(
    archive: Archive, tmp_path: Path
) -> None:
    change(archive, put(archive, FIRST).revision, lambda _: b"")
    spool = Archive(tmp_path / "spool")
    change(spool, put(spool, RESTATED).revision, lambda _: b"{")
    put(spool, FIRST, minutes=60)
    assert len(spool.deliver(archive)) == 1
    assert (bodies(archive), aside(archive), list(files(spool).values())) == ([FIRST], [b""], [b"{"])


# Ordinary tools


def test_gzip_and_duckdb_read_the_archive(folder: Archive) -> None:
    revisions = [put(folder, body, minutes).revision for minutes, body in enumerate((FIRST, RESTATED))]
    put(folder, HTML)
    put(folder, sample_response(NEXT), minutes=24 * 60)
    for one, body in zip(revisions, (FIRST, RESTATED), strict=True):
        assert gzip.decompress(path_of(one).read_bytes()) == body
        assert subprocess.run(["gzip", "-dc", path_of(one)], capture_output=True, check=True).stdout == body
    with duckdb.connect() as connection:
        found = connection.execute(
            "select data.as_of, len(data.classifications) from read_json(?, filename = true) order by filename",
            [f"{folder.place}/*/2*/*.json.gz"],
        ).fetchall()
    assert found == [(DAY, 29), (DAY, 29), (NEXT, 29)]


# Several writers

WRITE = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from orpipeline.archive import Archive
place, at = sys.argv[1], datetime.fromisoformat(sys.argv[2])
archive = Archive(place if "://" in place else Path(place))
bodies = sys.stdin.buffer.read().split(b"|")
print("open", flush=True)
for minutes, body in enumerate(bodies):
    archive.put(body, fetched_at=at + timedelta(minutes=minutes), source="x", origin="api")
"""


def write(archive: Archive, *of_each: list[bytes]) -> None:
    """Archive some responses in one process each, all at once."""
    command = [sys.executable, "-c", WRITE, str(archive.place), FETCHED.isoformat()]
    with ThreadPoolExecutor() as threads:
        wanted = [b"|".join(mine) for mine in of_each]
        done = threads.map(lambda mine: subprocess.run(command, input=mine, capture_output=True, timeout=120), wanted)
        assert [one.returncode for one in done] == [0] * len(of_each)


def test_processes_that_archive_the_same_and_different_responses_lose_and_double_none(archive: Archive) -> None:
    same = [FIRST + b" " * n for n in range(5)]
    write(archive, same, same)
    assert bodies(archive) == same
    different = [[FIRST + space * (n + 1) for n in range(5)] for space in (b"\n", b"\t")]
    write(archive, *different)
    assert sorted(bodies(archive)) == sorted([*same, *chain(*different)])


# The disk

FULL = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from orpipeline.archive import Archive
from orpipeline.errors import StoreError
# No file can grow beyond 100 bytes, as on a disk that fills up during the write.
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
fetched_at = datetime(2026, 10, 7, 1, tzinfo=UTC)
for body in sys.stdin.buffer.read().split(b"|"):
    try:
        Archive(Path(sys.argv[1])).put(body, fetched_at=fetched_at, source="x" * 200, origin="api")
    except StoreError as error:
        print(error)
"""


def test_a_response_that_does_not_fit_on_the_disk_leaves_nothing(folder: Archive, tmp_path: Path) -> None:
    put(folder, FIRST)
    before = [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    responses = [RESTATED, HTML]
    command = [sys.executable, "-c", FULL, str(folder.place)]
    done = subprocess.run(command, input=b"|".join(responses), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    errors = done.stdout.decode().splitlines()
    assert len(errors) == len(responses)
    assert all(str(folder.place) in error and "File too large" in error for error in errors)
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == before
    assert all(put(folder, body, minutes=9).new for body in responses)


def test_what_a_killed_writer_left_is_no_response_and_removed_after_an_hour(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "raw", clock=lambda: FETCHED)
    one = put(archive, FIRST).revision
    old, young = (path_of(one).with_name(f"{path_of(one).name}#{n}") for n in (1, 2))
    for left, minutes in ((old, 61), (young, 59)):
        left.write_bytes(b"half")
        os.utime(left, ((FETCHED - timedelta(minutes=minutes)).timestamp(),) * 2)
    assert (archive.revisions(DAY), bodies(archive)) == ([one], [FIRST])
    archive.sweep()
    assert (old.exists(), young.exists(), bodies(archive)) == (False, True, [FIRST])


def test_the_archive_is_private_to_its_user(folder: Archive, tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        put(folder, FIRST)
    finally:
        os.umask(umask)
    assert (tmp_path / "raw").stat().st_mode & 0o777 == 0o700
