"""The archive loses nothing, overwrites nothing and detects damage, on a real disk and in an object store.

Tests with the fixture `archive` run on both; those with `folder` are about files.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier

import duckdb
import pytest

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import ArchiveError, CorruptAnswerError, FetchTime, Record, Stored
from orpipeline.testing import sample_answer
from orpipeline_tests import raw
from orpipeline_tests.raw import files

DAY = date(2026, 10, 6)
FETCHED = datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)
FIRST = sample_answer(DAY)
RESTATED = FIRST.replace(b'"usage_share":0.', b'"usage_share":0.0', 1)


class Folder(Archive):
    """An archive in a folder."""

    @property
    def root(self) -> Path:
        return Path(super().root)


@pytest.fixture(params=["folder", "objects"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    if request.param == "folder":
        return Archive(tmp_path / "raw")
    return Archive(f"{request.getfixturevalue('bucket')}/raw")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "raw")


def put(archive: Archive, body: bytes, minutes: float = 0, days: int = 0) -> Stored:
    fetched_at = FETCHED + timedelta(days, minutes=minutes)
    return archive.put(body, fetched_at=fetched_at, source="https://api.test/x", origin="api")


def bodies(archive: Archive) -> list[bytes]:
    return [archive.read(record) for record in archive.revisions(DAY)]


def file(record: Record) -> Path:
    """Return the file of an answer in a folder."""
    assert isinstance(record.path, Path)
    return record.path


# Revisions


def test_an_archived_answer_is_read_back_with_its_record(archive: Archive) -> None:
    stored = put(archive, FIRST)
    record = stored.record
    assert stored.new
    assert (record.as_of, record.revision, record.size, record.fetched_at) == (DAY, 1, len(FIRST), FETCHED)
    assert (record.source, record.origin) == ("https://api.test/x", "api")
    assert record.path == raw.below(archive.root, "2026-10-06", "r1", "task_classifications.json.gz")
    assert Archive(archive.root).revisions(DAY) == [record]
    assert archive.read(record) == FIRST


def test_the_same_bytes_again_add_nothing(archive: Archive) -> None:
    first = put(archive, FIRST)
    before = files(archive.root)
    again = put(archive, FIRST, minutes=5)
    assert (again.new, again.record) == (False, first.record)
    assert files(archive.root) == before


def test_a_day_restated_back_to_its_first_figures_becomes_a_third_revision(archive: Archive) -> None:
    for minutes, body in enumerate((FIRST, RESTATED, FIRST)):
        before = files(archive.root) if minutes else {}
        assert put(archive, body, minutes).record.revision == minutes + 1
        assert before.items() <= files(archive.root).items()
    assert bodies(archive) == [FIRST, RESTATED, FIRST]


@pytest.mark.parametrize("minutes", [0, -5])
def test_an_older_revision_again_adds_nothing(archive: Archive, minutes: float) -> None:
    first = put(archive, FIRST)
    put(archive, RESTATED, minutes=5)
    again = put(archive, FIRST, minutes)
    assert (again.new, again.record) == (False, first.record)
    assert len(archive.revisions(DAY)) == 2


def test_the_newest_revision_is_the_one_fetched_last(archive: Archive) -> None:
    put(archive, FIRST)
    put(archive, RESTATED, minutes=-5)
    assert bodies(archive) == [RESTATED, FIRST]
    latest = archive.latest(DAY)
    assert latest is not None
    assert latest.revision == 1


def test_an_unknown_fetch_time_is_recorded_as_the_time_of_the_import(tmp_path: Path) -> None:
    imported_at = FETCHED + timedelta(days=9)
    archive = Archive(tmp_path / "raw", clock=lambda: imported_at)
    archive.put(FIRST, fetched_at=None, source="a file", origin="import")
    put(archive, RESTATED)
    assert [(r.fetch_time, r.fetched_at) for r in archive.revisions(DAY)] == [
        (FetchTime.UNKNOWN, imported_at),
        (FetchTime.RECORDED, FETCHED),
    ]


def test_a_fetch_time_without_evidence_never_displaces_our_own_fetch(archive: Archive) -> None:
    midnight = datetime(2026, 10, 7, 23, 59, 59, tzinfo=UTC)
    archive.put(RESTATED, fetched_at=midnight, source="a.json", origin="import", fetch_time=FetchTime.STATED)
    put(archive, FIRST)
    assert bodies(archive) == [RESTATED, FIRST]
    assert not put(archive, FIRST, minutes=5).new


@pytest.mark.parametrize("known", [FetchTime.STATED, FetchTime.UNKNOWN])
def test_our_own_fetch_is_recorded_although_the_same_bytes_were_imported_before(
    archive: Archive, known: FetchTime
) -> None:
    put(archive, FIRST)
    at = FETCHED + timedelta(hours=1) if known is FetchTime.STATED else None
    archive.put(RESTATED, fetched_at=at, source="a.json", origin="import", fetch_time=known)
    assert put(archive, RESTATED, minutes=90).new
    assert bodies(archive)[-1] == RESTATED
    assert archive.revisions(DAY)[-1].fetch_time is FetchTime.RECORDED


def test_more_than_nine_revisions_keep_their_order(archive: Archive) -> None:
    answers = [FIRST + b" " * extra for extra in range(11)]
    for body in answers:
        put(archive, body)
    assert [record.revision for record in archive.revisions(DAY)] == list(range(1, 12))
    assert bodies(archive) == answers


def test_days_are_returned_oldest_first(archive: Archive) -> None:
    days = [date(2026, 10, 6), date(2025, 12, 31), date(2026, 1, 1)]
    for day in days:
        put(archive, sample_answer(day), days=(day - DAY).days)
    put(archive, b"<html>")
    assert archive.days() == sorted(days)


def test_readers_create_nothing(archive: Archive) -> None:
    assert (archive.days(), archive.has(DAY), archive.revisions(DAY), archive.latest(DAY)) == ([], False, [], None)
    assert archive.folders() == []
    assert files(archive.root) == {}


def test_a_fetch_time_in_another_time_zone_is_stored_in_utc(archive: Archive) -> None:
    east = FETCHED.astimezone(timezone(timedelta(hours=9)))
    record = archive.put(FIRST, fetched_at=east, source="x", origin="api").record
    assert archive.latest(DAY) == record
    stored = json.loads(raw.read(raw.record_file(record.path)))
    assert stored["fetched_at"] == "2026-10-07T00:20:03.123456+00:00"


# Undated answers


def with_as_of(as_of: object) -> bytes:
    return json.dumps({"data": {"as_of": as_of}}).encode()


@pytest.mark.parametrize(
    "body",
    [
        *map(
            with_as_of,
            ("../../x", "/tmp/x", "20261006", "2026-02-30", "2026-10-06\n", "\uff12\uff10\uff12\uff16-10-06"),
        ),
        *map(with_as_of, ("undated", None, 20261006)),
        *(b"<html>", b"", b'{"data":[]}', b"\xff\x00", b"[" * 100_000),
    ],
)
def test_an_answer_without_a_readable_day_is_stored_as_undated_and_nowhere_else(
    folder: Folder, tmp_path: Path, body: bytes
) -> None:
    archive, outside = folder, set(tmp_path.iterdir())
    stored = put(archive, body)
    assert stored.new
    assert (stored.record.as_of, stored.record.revision) == (None, 0)
    assert archive.read(stored.record) == body
    assert archive.days() == []
    assert set(tmp_path.iterdir()) - outside == {archive.root}
    assert [stored.record.folder] == list((archive.root / "undated").iterdir()) == archive.folders()


def test_an_undated_answer_is_stored_once(archive: Archive) -> None:
    first = put(archive, b"<html>busy</html>")
    again = put(archive, b"<html>busy</html>", minutes=5)
    assert (again.new, again.record) == (False, first.record)
    assert put(archive, b"<html>other</html>", minutes=5).new
    assert len(archive.folders()) == 2


# Damage


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "cut off": lambda content: content[:-100],
    "empty": lambda _: b"",
    "unpacked": lambda _: FIRST,
    "other content": lambda _: gzip.compress(RESTATED),
    "more at the end": lambda content: content + b"more",
    "too large": lambda _: gzip.compress(FIRST + b" " * 30_000_000),
    "missing": lambda _: None,
}


def change(place: raw.Place, damage: Callable[[bytes], bytes | None]) -> None:
    content = damage(raw.read(place))
    if content is None:
        raw.remove(place)
    else:
        raw.write(place, content)


def change_text(place: raw.Place, damage: Callable[[str], str]) -> None:
    raw.write(place, damage(raw.read(place).decode()).encode(errors="surrogateescape"))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_never_read_as_an_answer(archive: Archive, damage: Callable[[bytes], bytes | None]) -> None:
    record = put(archive, FIRST).record
    other = put(archive, RESTATED, minutes=5).record
    change(record.path, damage)
    with pytest.raises(CorruptAnswerError) as caught:
        archive.read(record)
    assert str(record.path) in str(caught.value)
    assert archive.read(other) == RESTATED
    first, second = archive.read_all([record, other])
    assert (type(first), second) == (CorruptAnswerError, RESTATED)
    assert [type(error) for error in archive.check_all()] == [CorruptAnswerError, type(None)]


UNREADABLE: list[Callable[[str], str]] = [
    *(lambda text: text[:50], lambda _: "[]", lambda _: "[" * 100_000, lambda _: "\udcff"),
    lambda text: text.replace("sha256", "sha"),
    lambda text: text.replace("2026-10-07T00:20:03.123456+00:00", "0001-01-01T00:00:00+23:00"),
    lambda text: text.replace("2026-10-07T00:20:03.123456+00:00", "1970-01-01T00:00:00+00:00"),
    lambda text: text.replace(str(len(FIRST)), "Infinity"),
]


@pytest.mark.parametrize("damage", UNREADABLE)
def test_a_damaged_record_is_named_and_its_day_still_counts_as_archived(
    archive: Archive, damage: Callable[[str], str]
) -> None:
    path = raw.record_file(put(archive, FIRST).record.path)
    change_text(path, damage)
    assert (archive.latest(DAY), archive.is_current(DAY)) == (None, False)
    assert str(path) in str(archive.day(DAY).damaged[1])
    assert archive.days() == [DAY]


def test_a_damaged_record_does_not_hide_an_intact_later_revision(archive: Archive) -> None:
    path = raw.record_file(put(archive, FIRST).record.path)
    second = put(archive, RESTATED, minutes=5).record
    change_text(path, UNREADABLE[0])
    assert archive.revisions(DAY) == [second]
    assert archive.is_current(DAY)
    raw.write(raw.record_file(second.path), b"{}")
    assert not archive.is_current(DAY)


def test_a_record_of_a_newer_version_is_left_alone(archive: Archive) -> None:
    record = put(archive, FIRST).record
    change_text(raw.record_file(record.path), lambda text: text.replace('"version": 2', '"version": 3'))
    before = files(record.folder)
    assert put(archive, RESTATED, minutes=5).record.revision == 2
    assert files(record.folder) == before
    assert "Upgrade orpipeline" in str(archive.day(DAY).damaged[1])


# Repair


def damaged_folders(archive: Archive) -> list[str]:
    names = {path.split("/")[1] for path in files(archive.root) if path.startswith("2026-10-06/damaged-")}
    return sorted(name[:11] for name in names)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("same_content", [False, True], ids=["fetched", "imported"])
def test_fetching_or_importing_the_same_bytes_restores_a_damaged_answer(
    archive: Archive, damage: Callable[[bytes], bytes | None], same_content: bool
) -> None:
    record = put(archive, FIRST).record
    change(record.path, damage)
    left = files(record.folder)
    assert not archive.is_current(DAY)
    stored = archive.put(
        FIRST, fetched_at=FETCHED + timedelta(hours=1), source="x", origin="api", same_content=same_content
    )
    assert stored == Stored(record, new=True)
    assert archive.revisions(DAY) == [record]  # with its first fetch time
    assert archive.read(record) == FIRST
    aside = {path: content for path, content in files(archive.root).items() if "/damaged-r1-" in path}
    assert {path.split("/")[2]: content for path, content in aside.items()} == left


def test_another_answer_of_the_day_sets_a_damaged_one_aside_and_takes_the_next_number(archive: Archive) -> None:
    flipped, cut = put(archive, FIRST).record, put(archive, FIRST + b" ", minutes=1).record
    raw.write(flipped.path, gzip.compress(RESTATED))
    raw.write(raw.record_file(cut.path), b"{")
    third = put(archive, RESTATED, minutes=5).record
    assert third.revision == 3
    assert damaged_folders(archive) == ["damaged-r1-", "damaged-r2-"]
    assert archive.revisions(DAY) == [third]
    assert put(archive, FIRST, minutes=9).record.revision == 4
    raw.remove(third.path)
    put(archive, FIRST + b"  ", minutes=10)
    assert damaged_folders(archive) == ["damaged-r1-", "damaged-r2-", "damaged-r3-"]


def test_figures_that_change_back_to_a_damaged_revision_restore_it_and_become_the_newest(archive: Archive) -> None:
    record = put(archive, FIRST).record
    put(archive, RESTATED, minutes=5)
    raw.write(record.path, b"")
    put(archive, FIRST, minutes=9)
    assert bodies(archive) == [FIRST, RESTATED, FIRST]


def test_a_damaged_undated_answer_is_stored_again(archive: Archive) -> None:
    record = put(archive, b"<html>").record
    raw.write(record.path, b"")
    again = put(archive, b"<html>")
    assert again.new
    assert archive.read(again.record) == b"<html>"
    assert raw.read(record.path) == b""


def test_an_answer_that_cannot_be_read_now_is_not_damaged(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    first = put(archive, FIRST).record

    def read(self: Archive, record: Record) -> bytes:
        if record == first:
            raise ArchiveError("Cannot read it: Input/output error.")
        return original(self, record)

    original = Archive.read
    with monkeypatch.context() as patched:
        patched.setattr(Archive, "read", read)
        put(archive, RESTATED, minutes=5)
    assert bodies(archive) == [FIRST, RESTATED]
    assert damaged_folders(archive) == []


def test_processes_that_restore_an_answer_at_once_restore_it_once(archive: Archive) -> None:
    record = put(archive, FIRST).record
    raw.write(record.path, b"")
    start = Barrier(8)

    def fetch(_: int) -> Stored:
        start.wait()
        return put(Archive(archive.root), FIRST, minutes=5)

    with ThreadPoolExecutor(8) as threads:
        stored = list(threads.map(fetch, range(8)))
    assert {one.record for one in stored} == {record}
    assert bodies(archive) == [FIRST]
    # In an object store, each of them can set a copy aside before one restores the answer.
    assert set(damaged_folders(archive)) == {"damaged-r1-"}


# Days that the API could not have had


@pytest.mark.parametrize("as_of", ["2026-10-07", "2099-01-01", "1900-01-01", "9999-12-31", "0001-01-01", "2026-09-05"])
def test_a_day_that_the_api_could_not_have_had_is_stored_as_undated(archive: Archive, as_of: str) -> None:
    body = FIRST.replace(b"2026-10-06", as_of.encode())
    record = put(archive, body).record
    assert (record.as_of, str(record.path).split("/")[-3]) == (None, "undated")
    assert archive.read(record) == body
    assert archive.days() == []


def test_an_older_day_may_be_imported(archive: Archive) -> None:
    old = sample_answer(date(2020, 2, 29))
    archive.put(old, fetched_at=None, source="a file", origin="import")
    assert archive.days() == [date(2020, 2, 29)]


@pytest.mark.parametrize("as_of", ["2026-10-07", "2099-01-01", "1900-01-01", "9999-12-31"])
def test_a_misdated_answer_that_version_0_1_stored_belongs_to_no_day(folder: Folder, as_of: str) -> None:
    archive = folder
    r1 = file(put(archive, FIRST).record).parent
    (archive.root / as_of).mkdir()
    r1.rename(archive.root / as_of / "r1")
    assert (archive.days(), archive.revisions(date.fromisoformat(as_of))) == ([], [])
    (misdated,) = archive.misdated()
    assert misdated.folder == archive.root / as_of / "r1"


@pytest.mark.parametrize("body", [FIRST, b"<html>"], ids=["dated", "undated"])
def test_a_changed_sha256_is_detected(archive: Archive, body: bytes) -> None:
    record = put(archive, body).record
    change_text(raw.record_file(record.path), lambda text: text.replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(CorruptAnswerError):
        archive.read(archive.record(record.folder))


def test_a_source_that_is_not_valid_text_is_escaped(archive: Archive) -> None:
    path = raw.record_file(put(archive, FIRST).record.path)
    change_text(path, lambda text: text.replace("https://api.test/x", r"d\udcff\ud800.json"))
    (record,) = archive.revisions(DAY)
    assert record.source == r"d\udcff\ud800.json"
    assert record.source.isascii()


# Ordinary tools


def test_duckdb_reads_the_whole_archive_in_one_query(folder: Folder) -> None:
    archive = folder
    for body in (FIRST, RESTATED, b"<html>"):
        put(archive, body)
    put(archive, sample_answer(date(2026, 10, 7)), days=1)
    with duckdb.connect() as connection:
        found = connection.execute(
            "select data.as_of, len(data.classifications) from read_json(?, filename = true) order by filename",
            [f"{archive.root}/*/r*/*.json.gz"],
        ).fetchall()
    assert found == [(DAY, 29), (DAY, 29), (date(2026, 10, 7), 29)]


def test_the_record_is_json_with_documented_fields(archive: Archive) -> None:
    record = put(archive, FIRST).record
    assert json.loads(raw.read(raw.record_file(record.path))) == {
        "version": 2,
        "as_of": "2026-10-06",
        "revision": 1,
        "sha256": record.sha256,
        "bytes": len(FIRST),
        "fetched_at": "2026-10-07T00:20:03.123456+00:00",
        "origin": "api",
        "source": "https://api.test/x",
        "fetch_time": "recorded",
    }


# Several writers


def test_threads_that_archive_different_answers_of_a_day_lose_none(archive: Archive) -> None:
    answers = [FIRST + b" " * extra for extra in range(8)]
    start = Barrier(len(answers))

    def write(body: bytes) -> bool:
        start.wait()
        return put(archive, body).new

    with ThreadPoolExecutor(len(answers)) as threads:
        assert all(threads.map(write, answers))
    assert sorted(bodies(archive)) == sorted(answers)


def test_threads_that_import_the_same_days_store_each_once(archive: Archive) -> None:
    answers = [*(sample_answer(DAY - timedelta(days=n)) for n in range(5)), b"<html>busy</html>"]
    start = Barrier(4)

    def write(_: int) -> int:
        mine, new = Archive(archive.root), 0
        for body in answers:
            start.wait()
            new += mine.put(body, fetched_at=FETCHED, source="x", origin="import", same_content=True).new
        return new

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(write, range(4))) == len(answers)
    assert len(archive.folders()) == len(answers)


WRITE_TEN = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from orpipeline.archive.archive import Archive
body = sys.stdin.buffer.read()
for extra in range(10):
    Archive(Path(sys.argv[1])).put(
        body + sys.argv[2].encode() * (extra + 1),
        fetched_at=datetime(2026, 10, 7, 1, extra, tzinfo=UTC),
        source="x",
        origin="api",
    )
"""


def test_processes_that_archive_different_answers_of_a_day_lose_none(folder: Folder) -> None:
    archive = folder
    spaces = (" ", "\n")
    with ThreadPoolExecutor() as threads:
        for done in threads.map(
            lambda space: subprocess.run(
                [sys.executable, "-c", WRITE_TEN, archive.root, space], input=FIRST, check=True, timeout=60
            ),
            spaces,
        ):
            assert done.returncode == 0
    expected = sorted(FIRST + space.encode() * (extra + 1) for space in spaces for extra in range(10))
    assert sorted(bodies(archive)) == expected


# A disk that cannot be written


FULL = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from orpipeline.archive.archive import Archive
from orpipeline.archive.records import ArchiveError
# No file can grow beyond 100 bytes, as on a disk that fills up during the write.
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
fetched_at = datetime(2026, 10, 7, 1, tzinfo=UTC)
for body in sys.stdin.buffer.read().split(b"|"):
    try:
        Archive(Path(sys.argv[1])).put(body, fetched_at=fetched_at, source="x", origin="api")
    except ArchiveError as error:
        print(error)
"""


def test_an_answer_that_does_not_fit_on_the_disk_leaves_nothing(folder: Folder) -> None:
    archive = folder
    put(archive, FIRST)
    before = sorted(archive.root.rglob("*"))
    # The first answer does not fit; of the others, the records do not.
    answers = [RESTATED, with_as_of("2026-10-06"), b"<html>"]
    command = [sys.executable, "-c", FULL, str(archive.root)]
    done = subprocess.run(command, input=b"|".join(answers), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    errors = done.stdout.decode().splitlines()
    assert len(errors) == len(answers)
    assert all(str(archive.root) in error and "File too large" in error for error in errors)
    assert sorted(archive.root.rglob("*")) == before
    assert all(put(archive, body, minutes=9).new for body in answers)


def test_a_file_in_the_place_of_the_archive_stays_and_is_named(folder: Folder) -> None:
    archive = folder
    archive.root.write_text("in the way")
    with pytest.raises(ArchiveError, match=r"Cannot write .*/raw"):
        put(archive, FIRST)
    assert archive.root.read_text() == "in the way"


def test_an_answer_whose_day_cannot_be_written_is_kept_and_adopted_later(folder: Folder) -> None:
    archive = folder
    archive.root.mkdir()
    (archive.root / "2026-10-06").write_text("in the way")
    with pytest.raises(ArchiveError, match=r"Cannot write .*/2026-10-06"):
        put(archive, FIRST)
    other = archive.root / ".writing-z"  # one that cannot be archived does not block the others
    shutil.copytree(file(put(Archive(archive.root.with_name("theirs")), b"<html>").record).parent, other)
    assert [archive.read(record) for record in archive.adopt()] == [b"<html>"]
    (archive.root / "2026-10-06").unlink()
    archive.adopt()
    assert bodies(archive) == [FIRST]


@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: path.symlink_to("nowhere")])
def test_a_file_or_link_in_the_place_of_a_revision_only_takes_its_number(
    folder: Folder, make: Callable[[Path], object]
) -> None:
    archive = folder
    (archive.root / "2026-10-06").mkdir(parents=True)
    make(archive.root / "2026-10-06" / "r1")
    assert put(archive, FIRST).record.revision == 2
    assert bodies(archive) == [FIRST]


@pytest.mark.parametrize("link", ["2026-10-06", "undated"])
def test_nothing_is_written_through_a_link_inside_the_archive(folder: Folder, tmp_path: Path, link: str) -> None:
    archive = folder
    outside = tmp_path / "outside"
    outside.mkdir()
    archive.root.mkdir()
    (archive.root / link).symlink_to(outside)
    with pytest.raises(ArchiveError, match="is a link"):
        put(archive, FIRST if link != "undated" else b"<html>")
    assert list(outside.iterdir()) == []


# Leftovers of killed processes


def leave(archive: Folder, name: str, source: Path | None = None, *, minutes: float = 0) -> Path:
    """Leave an unfinished write, `minutes` old: a copy of an archived answer's folder, or half an answer."""
    leftover = archive.root / f".writing-{name}"
    if source is None:
        leftover.mkdir(parents=True)
        (leftover / "task_classifications.json.gz").write_bytes(b"half")
    else:
        shutil.copytree(source, leftover)
    at = (FETCHED - timedelta(minutes=minutes)).timestamp()
    os.utime(leftover, (at, at))
    return leftover


@pytest.mark.parametrize("body", [FIRST, b"<html>"], ids=["dated", "undated"])
def test_a_complete_leftover_is_adopted_with_its_record(tmp_path: Path, body: bytes) -> None:
    archive = Folder(tmp_path / "raw", clock=lambda: FETCHED)
    record = put(Archive(tmp_path / "theirs"), body).record
    leave(archive, "young", file(record).parent)
    assert archive.days() == []
    assert [Path(place).name for place in archive.leftovers()] == [".writing-young"]
    (adopted,) = archive.adopt()
    assert archive.read(adopted) == body
    assert (adopted.fetched_at, adopted.source, adopted.origin) == (record.fetched_at, record.source, record.origin)
    assert adopted.as_of == record.as_of
    assert (archive.leftovers(), archive.adopt()) == ([], [])


def test_a_leftover_that_was_set_aside_is_never_adopted_as_a_day(tmp_path: Path) -> None:
    archive = Folder(tmp_path / "raw", clock=lambda: FETCHED)
    altered = Archive(tmp_path / "theirs").put_undated(FIRST, fetched_at=FETCHED, source="x", origin="api").record
    leave(archive, "young", file(altered).parent)
    assert [record.as_of for record in archive.adopt()] == [None]
    assert archive.days() == []


def test_a_leftover_that_cannot_be_read_is_kept_and_listed(tmp_path: Path) -> None:
    archive = Folder(tmp_path / "raw", clock=lambda: FETCHED)
    newer = leave(archive, "newer", file(put(Archive(tmp_path / "theirs"), FIRST).record).parent)
    path = newer / "record.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 3'))
    os.utime(newer, ((FETCHED - timedelta(hours=2)).timestamp(),) * 2)
    assert archive.adopt() == []
    assert archive.leftovers() == [newer]


def test_leftovers_are_removed_after_an_hour_once_they_are_archived(tmp_path: Path) -> None:
    archive = Folder(tmp_path / "raw", clock=lambda: FETCHED)
    complete = file(put(archive, FIRST).record).parent
    kept = {leave(archive, "young"), leave(archive, "young-complete", complete)}
    old = [leave(archive, "old", minutes=61), leave(archive, "old-complete", complete, minutes=61)]
    without_record = leave(archive, "without-record", complete, minutes=61)
    (without_record / "record.json").write_text('{"as_of": "20')
    os.utime(without_record, ((FETCHED - timedelta(minutes=61)).timestamp(),) * 2)
    assert archive.adopt() == []
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in [*old, without_record])
    assert bodies(archive) == [FIRST]


def test_the_archive_is_private_to_its_user(folder: Folder) -> None:
    archive = folder
    umask = os.umask(0)
    try:
        put(archive, FIRST)
        put(archive, b"<html>")
    finally:
        os.umask(umask)
    paths = [archive.root, *archive.root.rglob("*")]
    modes = {path: path.stat().st_mode & 0o777 for path in paths}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in paths}
