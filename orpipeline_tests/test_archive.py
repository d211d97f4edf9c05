"""The archive on a real disk: nothing lost, nothing overwritten, nothing damaged unnoticed."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from threading import Barrier

import duckdb
import pytest

from orpipeline.archive.folder import Archive, ArchiveError, CorruptAnswerError, Kept, Record
from orpipeline.testing.sample_answers import demo_answer

DAY = date(2026, 10, 6)
FETCHED = datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)
FIRST = demo_answer(DAY)
RESTATED = FIRST.replace(b'"usage_share":0.', b'"usage_share":0.0', 1)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "raw")


def keep(archive: Archive, body: bytes, minutes: float = 0) -> Kept:
    fetched_at = FETCHED + timedelta(minutes=minutes)
    return archive.put(body, fetched_at=fetched_at, source="https://api.test/x", origin="api")


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# Revisions


def test_what_was_kept_is_told_and_read_again(archive: Archive) -> None:
    kept = keep(archive, FIRST)
    record = kept.record
    assert kept.new
    assert (record.as_of, record.revision, record.size, record.fetched_at) == (DAY, 1, len(FIRST), FETCHED)
    assert (record.source, record.origin) == ("https://api.test/x", "api")
    assert record.path == archive.root / "2026-10-06" / "r1" / "task_classifications.json.gz"
    assert Archive(archive.root).revisions(DAY) == [record]
    assert archive.read(record) == FIRST


def test_the_same_bytes_again_add_nothing(archive: Archive) -> None:
    first = keep(archive, FIRST)
    before = files(archive.root)
    again = keep(archive, FIRST, minutes=5)
    assert (again.new, again.record) == (False, first.record)
    assert files(archive.root) == before


def test_a_restated_day_becomes_a_second_revision(archive: Archive) -> None:
    keep(archive, FIRST)
    before = files(archive.root)
    assert keep(archive, RESTATED, minutes=5).record.revision == 2
    assert [archive.read(record) for record in archive.revisions(DAY)] == [FIRST, RESTATED]
    assert before.items() <= files(archive.root).items()


def test_a_day_restated_back_to_its_first_figures_becomes_a_third_revision(archive: Archive) -> None:
    for minutes, body in enumerate((FIRST, RESTATED, FIRST)):
        assert keep(archive, body, minutes).new
    assert [archive.read(record) for record in archive.revisions(DAY)] == [FIRST, RESTATED, FIRST]


@pytest.mark.parametrize("minutes", [0, -5])
def test_an_older_revision_that_is_brought_again_adds_nothing(archive: Archive, minutes: float) -> None:
    first = keep(archive, FIRST)
    keep(archive, RESTATED, minutes=5)
    again = keep(archive, FIRST, minutes)
    assert (again.new, again.record) == (False, first.record)
    assert len(archive.revisions(DAY)) == 2


def test_the_latest_of_many_revisions_is_told_by_number(archive: Archive) -> None:
    bodies = [FIRST + b" " * extra for extra in range(11)]
    for minutes, body in enumerate(bodies):
        keep(archive, body, minutes)
    assert [record.revision for record in archive.revisions(DAY)] == list(range(1, 12))
    latest = archive.latest(DAY)
    assert latest is not None
    assert archive.read(latest) == bodies[-1]


def test_the_days_are_told_oldest_first(archive: Archive) -> None:
    days = [date(2026, 10, 6), date(2025, 12, 31), date(2026, 1, 1)]
    for day in days:
        keep(archive, demo_answer(day))
    keep(archive, b"<html>")
    assert archive.days() == sorted(days)


def test_an_archive_that_is_not_there_yet_is_empty_and_stays_unmade(archive: Archive) -> None:
    assert (archive.days(), archive.revisions(DAY), archive.latest(DAY)) == ([], [], None)
    assert not archive.root.exists()


def test_a_fetch_time_in_another_zone_is_kept_in_utc(archive: Archive) -> None:
    east = FETCHED.astimezone(timezone(timedelta(hours=9)))
    record = archive.put(FIRST, fetched_at=east, source="x", origin="api").record
    assert archive.latest(DAY) == record
    assert (
        json.loads(record.path.with_name("record.json").read_text())["fetched_at"] == "2026-10-07T00:20:03.123456+00:00"
    )


# Answers of no day


def stated(as_of: object) -> bytes:
    return json.dumps({"data": {"as_of": as_of}}).encode()


@pytest.mark.parametrize(
    "body",
    [
        *map(stated, ("../../x", "/tmp/x", "20261006", "2026-W41-2", "2026-02-30", "0000-01-01", "2026-10-06/../x")),
        *map(
            stated,
            (
                "2026-10-06\n",
                " 2026-10-06",
                "\uff12\uff10\uff12\uff16-10-06",
                "undated",
                "",
                None,
                20261006,
                ["2026-10-06"],
            ),
        ),
        *(b"<html>", b"", b"[]", b'{"data":[]}', b'{"data":"x"}', b"{}", b"\xff\x00", b"[" * 100_000),
    ],
)
def test_an_answer_of_no_day_is_kept_aside_and_nowhere_else(archive: Archive, tmp_path: Path, body: bytes) -> None:
    outside = set(tmp_path.iterdir())
    kept = keep(archive, body)
    assert kept.new
    assert (kept.record.as_of, kept.record.revision) == (None, 0)
    assert archive.read(kept.record) == body
    assert archive.days() == []
    assert set(tmp_path.iterdir()) - outside == {archive.root}
    (folder,) = (archive.root / "undated").iterdir()
    assert kept.record.path.parent == folder
    assert folder.name.startswith("20261007T002003.123456Z-")


def test_an_answer_of_no_day_is_kept_aside_once(archive: Archive) -> None:
    first = keep(archive, b"<html>busy</html>")
    again = keep(archive, b"<html>busy</html>", minutes=5)
    assert (again.new, again.record) == (False, first.record)
    assert keep(archive, b"<html>other</html>", minutes=5).new
    assert len(list((archive.root / "undated").iterdir())) == 2


# Damage


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _unpack(path: Path) -> None:
    path.write_bytes(FIRST)


def _replace(path: Path) -> None:
    path.write_bytes(gzip.compress(RESTATED))


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _blow_up(path: Path) -> None:
    path.write_bytes(gzip.compress(FIRST + b" " * 30_000_000))


@pytest.mark.parametrize("damage", [_truncate, _flip, _empty, _unpack, _replace, _append, _blow_up])
def test_a_damaged_file_is_never_read_as_an_answer(archive: Archive, damage: Callable[[Path], None]) -> None:
    record = keep(archive, FIRST).record
    other = keep(archive, RESTATED, minutes=5).record
    damage(record.path)
    with pytest.raises(CorruptAnswerError) as caught:
        archive.read(record)
    assert str(record.path) in str(caught.value)
    assert archive.read(other) == RESTATED


def test_a_lost_file_is_named(archive: Archive) -> None:
    record = keep(archive, FIRST).record
    record.path.unlink()
    with pytest.raises(ArchiveError) as caught:
        archive.read(record)
    assert str(record.path) in str(caught.value)


def test_a_changed_record_makes_its_answer_unreadable(archive: Archive) -> None:
    path = keep(archive, FIRST).record.path.with_name("record.json")
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0'))
    changed = archive.latest(DAY)
    assert changed is not None
    with pytest.raises(CorruptAnswerError) as caught:
        archive.read(changed)
    assert str(changed.path) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:50],
        lambda _: "[]",
        lambda _: "[" * 100_000,
        lambda _: "\udcff",
        lambda text: text.replace("sha256", "sha"),
        lambda text: text.replace("2026-10-07T", "yesterday "),
        lambda text: text.replace("2026-10-07T00:20:03.123456+00:00", "0001-01-01T00:00:00+23:00"),
        lambda text: text.replace(str(len(FIRST)), "Infinity"),
        lambda text: text.replace(str(len(FIRST)), '"many"'),
    ],
)
def test_a_record_that_is_none_is_named(archive: Archive, change: Callable[[str], str]) -> None:
    path = keep(archive, FIRST).record.path.with_name("record.json")
    path.write_text(change(path.read_text()), errors="surrogateescape")
    with pytest.raises(CorruptAnswerError) as caught:
        archive.latest(DAY)
    assert str(path) in str(caught.value)
    with pytest.raises(CorruptAnswerError):
        archive.put(RESTATED, fetched_at=FETCHED, source="a file", origin="import", same_content=True)
    assert archive.days() == [DAY]


def test_a_source_that_is_no_text_is_told_as_text(archive: Archive) -> None:
    path = keep(archive, FIRST).record.path.with_name("record.json")
    path.write_text(path.read_text().replace("https://api.test/x", r"d\udcff\ud800.json"))
    (record,) = archive.revisions(DAY)
    assert record.source == r"d\udcff\ud800.json"
    assert record.source.isascii()


def test_an_answer_is_kept_beside_a_damaged_record(archive: Archive) -> None:
    """The day is not usable until somebody mends the record, but what the API answered cannot be had again."""
    keep(archive, FIRST)
    (archive.root / "2026-10-06" / "r1" / "record.json").write_text("{}")
    kept = keep(archive, RESTATED, minutes=5)
    assert (kept.new, kept.record.revision) == (True, 2)
    assert archive.read(kept.record) == RESTATED
    assert not keep(archive, RESTATED, minutes=6).new
    with pytest.raises(CorruptAnswerError):
        archive.revisions(DAY)


def test_a_changed_record_of_an_answer_kept_aside_is_named(archive: Archive) -> None:
    path = keep(archive, b"<html>").record.path.with_name("record.json")
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(CorruptAnswerError) as caught:
        keep(archive, b"<html>")
    assert str(path) in str(caught.value)


# Ordinary tools


def test_gzip_unpacks_an_archived_answer(archive: Archive) -> None:
    path = keep(archive, FIRST).record.path
    assert subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout == FIRST


def test_duckdb_reads_the_whole_archive_in_one_query(archive: Archive) -> None:
    for body in (FIRST, RESTATED, demo_answer(date(2026, 10, 7)), b"<html>"):
        keep(archive, body)
    with duckdb.connect() as connection:
        found = connection.execute(
            "select data.as_of, len(data.classifications) from read_json(?, filename = true) order by filename",
            [f"{archive.root}/*/r*/*.json.gz"],
        ).fetchall()
    assert found == [(DAY, 29), (DAY, 29), (date(2026, 10, 7), 29)]


def test_the_record_is_json_of_documented_fields(archive: Archive) -> None:
    record = keep(archive, FIRST).record
    assert json.loads(record.path.with_name("record.json").read_text()) == {
        "as_of": "2026-10-06",
        "revision": 1,
        "sha256": record.sha256,
        "bytes": len(FIRST),
        "fetched_at": "2026-10-07T00:20:03.123456+00:00",
        "origin": "api",
        "source": "https://api.test/x",
        "fetched_at_known": True,
    }


# Several at once


def test_threads_that_bring_different_answers_of_a_day_lose_none(archive: Archive) -> None:
    bodies = [FIRST + b" " * extra for extra in range(8)]
    start = Barrier(len(bodies))

    def bring(body: bytes) -> bool:
        start.wait()
        return keep(archive, body).new

    with ThreadPoolExecutor(len(bodies)) as threads:
        assert all(threads.map(bring, bodies))
    assert sorted(archive.read(record) for record in archive.revisions(DAY)) == sorted(bodies)


@pytest.mark.parametrize("body", [FIRST, b"<html>busy</html>"], ids=["dated", "undated"])
def test_threads_that_bring_the_same_answer_keep_it_once(archive: Archive, body: bytes) -> None:
    start = Barrier(8)

    def bring(_: int) -> bool:
        start.wait()
        return keep(archive, body).new

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(bring, range(8))) == 1
    assert [name for name in files(archive.root) if name.endswith("/record.json")] == [
        str(keep(archive, body).record.path.with_name("record.json").relative_to(archive.root))
    ]


def test_threads_that_import_the_same_days_keep_each_once(archive: Archive) -> None:
    days = [DAY - timedelta(days=n) for n in range(40)]
    bodies = [demo_answer(day) for day in days]
    start = Barrier(8)

    def bring(number: int) -> int:
        own, new = Archive(archive.root), 0
        for body in bodies:
            start.wait()
            time.sleep(number / 2000)  # one writes while another looks
            new += own.put(body, fetched_at=None, source="x", origin="import", same_content=True).new
        return new

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(bring, range(8))) == len(days)
    assert [len(archive.revisions(day)) for day in days] == [1] * len(days)


class Overtaken(Archive):
    """An archive that another process brings the first answer into, just after it was found to lack the day."""

    def _records(self, day: date, numbers: Iterable[int], *, whole_only: bool = False) -> list[Record]:
        there = super()._records(day, numbers, whole_only=whole_only)
        if not there:
            keep(Archive(self.root), FIRST)
        return there


def test_what_another_process_kept_since_the_archive_was_looked_at_is_compared_too(tmp_path: Path) -> None:
    again = keep(Overtaken(tmp_path / "same"), FIRST)
    assert (again.new, again.record.revision) == (False, 1)
    other = keep(Overtaken(tmp_path / "other"), RESTATED, minutes=5)
    assert (other.new, other.record.revision) == (True, 2)


BRING = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from orpipeline.archive.folder import Archive
from orpipeline.testing.sample_answers import demo_answer
archive = Archive(Path(sys.argv[1]))
body = demo_answer(datetime(2026, 10, 6).date())
print("ready", flush=True)
sys.stdin.readline()
for extra in range(10):
    archive.put(body + sys.argv[2].encode() * (extra + 1), fetched_at=datetime.now(UTC), source="x", origin="api")
"""


def test_processes_that_bring_different_answers_of_a_day_lose_none(archive: Archive) -> None:
    spaces = (" ", "\n")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BRING, archive.root, space], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for space in spaces
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    expected = sorted(FIRST + space.encode() * (extra + 1) for space in spaces for extra in range(10))
    assert sorted(archive.read(record) for record in archive.revisions(DAY)) == expected


# Disks that do not take it


FULL = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from orpipeline.archive.folder import Archive, ArchiveError
# No file may grow beyond 100 bytes: to the archive that is a disk that fills up while it writes.
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    Archive(Path(sys.argv[1])).put(
        sys.stdin.buffer.read(), fetched_at=datetime(2026, 10, 7, 1, tzinfo=UTC), source="x", origin="api"
    )
except ArchiveError as error:
    print(error)
"""


@pytest.mark.parametrize("body", [RESTATED, stated("2026-10-06"), b"<html>"], ids=["answer", "record", "undated"])
def test_a_disk_that_fills_up_takes_an_answer_not_at_all(archive: Archive, body: bytes) -> None:
    keep(archive, FIRST)
    before = sorted(archive.root.rglob("*"))
    said = subprocess.run([sys.executable, "-c", FULL, archive.root], input=body, capture_output=True, check=True)
    assert said.stdout.decode().startswith(f"The raw archive cannot write {archive.root}")
    assert "File too large" in said.stdout.decode()
    assert said.stdout.count(b"\n") == 1
    assert sorted(archive.root.rglob("*")) == before
    assert keep(archive, body, minutes=9).new


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    archive = Archive(tmp_path / "file" / "raw")
    with pytest.raises(ArchiveError, match=r"cannot write .*/file/raw"):
        keep(archive, FIRST)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["2026-10-06", "2026-10-06/r1"])
def test_a_file_where_a_folder_belongs_is_left_alone_and_named(archive: Archive, place: str) -> None:
    path = archive.root / place
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    with pytest.raises(ArchiveError, match=r"2026-10-06|writing"):
        keep(archive, FIRST)
    assert files(archive.root) == {place: b"in the way"}


def test_what_a_killed_process_left_is_ignored(archive: Archive) -> None:
    leftover = archive.root / ".writing-killed"
    leftover.mkdir(parents=True)
    (leftover / "task_classifications.json.gz").write_bytes(b"half")
    assert archive.days() == []
    kept = keep(archive, FIRST)
    assert kept.record.revision == 1
    assert archive.days() == [DAY]
    assert archive.read(kept.record) == FIRST
    assert leftover.exists()


def test_the_archive_is_private_to_its_user(archive: Archive) -> None:
    umask = os.umask(0)
    try:
        keep(archive, FIRST)
        keep(archive, b"<html>")
    finally:
        os.umask(umask)
    paths = [archive.root, *archive.root.rglob("*")]
    modes = {path: path.stat().st_mode & 0o777 for path in paths}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in paths}
