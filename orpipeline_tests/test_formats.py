"""Answers in files: found by what a file holds, to the letter, and with the reason where there is none."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from orpipeline.archive.folder import Archive
from orpipeline.importing.formats import AnswerFile, FoundAnswer, NoAnswer, NoSuchFileError, find_files, read_answers
from orpipeline.openrouter.answer import read_as_of
from orpipeline.openrouter.frames import parse
from orpipeline_tests.answers import DAY, Bend, answer
from orpipeline_tests.imports import envelope, faults, found, read, respelt, served, tar_of, write, zip_of
from orpipeline_tests.violations import VIOLATIONS

BEFORE = DAY - timedelta(days=1)
ONE, TWO = answer(BEFORE), answer(DAY)
FETCHED = served(DAY)
UNUSUAL = (
    b'{ "data" :{"as_of":"2026-10-06" ,\t"window_days":7,"classifications":[{"tag":"m\\u0061th","usage_share":0.30,'
    b'"name":"\\ud83d\\ude00 \xc3\xa9"}],\r\n "macro_categories":[ ] }  }'
)


# Formats


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("one.json", TWO),
        ("one.json.gz", gzip.compress(TWO)),
        ("really-gzipped.json", gzip.compress(TWO)),
        ("really-plain.json.gz", TWO),
        ("one.txt", TWO),
        ("one", respelt(TWO)),
        ("with-a-mark.json", b"\xef\xbb\xbf" + TWO),
        ("in-space.json", b"\n  " + TWO + b"\n"),
        ("one.jsonl", TWO + b"\n"),
    ],
)
def test_a_file_of_one_answer_is_read_whatever_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (item,) = found(write(tmp_path / name, content))
    assert (item.source, item.fetched_at, item.demo) == (name, None, False)
    assert json.loads(item.body) == json.loads(TWO)


@pytest.mark.parametrize(
    ("name", "content", "sources"),
    [
        ("two.jsonl", ONE + b"\n\n" + TWO + b"\n", ["two.jsonl:1", "two.jsonl:3"]),
        ("dos.jsonl", ONE + b"\r\n" + TWO, ["dos.jsonl:1", "dos.jsonl:2"]),
        ("two.jsonl.gz", gzip.compress(ONE + b"\n" + TWO), ["two.jsonl.gz:1", "two.jsonl.gz:2"]),
        ("lines.json", ONE + b"\n" + TWO, ["lines.json:1", "lines.json:2"]),
        ("list.json", b"[" + ONE + b",\n " + TWO + b"]", ["list.json[1]", "list.json[2]"]),
        ("envelope.json", envelope(ONE, TWO), ["envelope.json[1]", "envelope.json[2]"]),
        ("two.zip", zip_of([("a.json", ONE), ("b/c.json", TWO)]), ["two.zip/a.json", "two.zip/b/c.json"]),
        (
            "stored.zip",
            zip_of([("a.json.gz", gzip.compress(ONE)), ("b.json", TWO)], zipfile.ZIP_STORED),
            ["stored.zip/a.json.gz", "stored.zip/b.json"],
        ),
        ("a-zip.json", zip_of([("a.json", ONE), ("b.json", TWO)]), ["a-zip.json/a.json", "a-zip.json/b.json"]),
        ("two.tar.gz", tar_of([("./a.json", ONE), ("b.json", TWO)]), ["two.tar.gz/a.json", "two.tar.gz/b.json"]),
        ("two.tar", tar_of([("a.json", ONE), ("b.json", TWO)], gzipped=False), ["two.tar/a.json", "two.tar/b.json"]),
        ("tar.zip", tar_of([("a.jsonl", ONE + b"\n" + TWO)]), ["tar.zip/a.jsonl:1", "tar.zip/a.jsonl:2"]),
        (
            "of-envelopes.json.gz",
            gzip.compress(b"[" + envelope(ONE) + b"," + envelope(TWO) + b"]"),
            ["of-envelopes.json.gz[1]", "of-envelopes.json.gz[2]"],
        ),
    ],
)
def test_several_answers_in_one_file_each_have_their_place(
    tmp_path: Path, name: str, content: bytes, sources: list[str]
) -> None:
    items = found(write(tmp_path / name, content))
    assert [item.source for item in items] == sources
    assert [item.body for item in items] == [ONE, TWO]


# Envelopes


@pytest.mark.parametrize("name", ["e.json", "e.json.gz"])
def test_an_envelopes_answer_is_the_bytes_that_stand_in_it(tmp_path: Path, name: str) -> None:
    content = envelope(UNUSUAL, ONE, fetched_at=FETCHED)
    items = found(write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content))
    assert [item.body for item in items] == [UNUSUAL, ONE]
    assert read_as_of(items[0].body) == DAY


def test_a_requests_fetch_time_wins_over_the_envelopes(tmp_path: Path) -> None:
    own = [served(BEFORE, hours=3), served(DAY, hours=4)]
    content = envelope(ONE, TWO, fetched_at=FETCHED, each=own)
    assert [item.fetched_at for item in found(write(tmp_path / "e.json", content))] == own


@pytest.mark.parametrize(
    ("said", "fetched_at"),
    [
        ('"2026-10-07T00:20:03.123456Z"', datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)),
        ('"2026-10-07T09:20:03+09:00"', datetime(2026, 10, 7, 0, 20, 3, tzinfo=UTC)),
        ('"2026-10-07T00:20:03"', datetime(2026, 10, 7, 0, 20, 3, tzinfo=UTC)),
        ('"2026-10-07"', datetime(2026, 10, 7, tzinfo=UTC)),
        ('"yesterday"', None),
        ('"0001-01-01T00:00:00+14:00"', None),
        ("1791332403", None),
        ("null", None),
        ("{}", None),
    ],
)
def test_a_fetch_time_is_utc_and_one_that_is_none_is_not_known(
    tmp_path: Path, said: str, fetched_at: datetime | None
) -> None:
    content = b'{"fetched_at": %s, "requests": [{"response": %s}]}' % (said.encode(), ONE)
    (item,) = found(write(tmp_path / "e.json", content))
    assert item.fetched_at == fetched_at


def test_a_request_whose_fetch_time_is_none_has_the_envelopes(tmp_path: Path) -> None:
    content = b'{"fetched_at": "%s", "requests": [{"fetched_at": "x", "response": %s}]}'
    (item,) = found(write(tmp_path / "e.json", content % (FETCHED.isoformat().encode(), ONE)))
    assert item.fetched_at == FETCHED


def test_requests_of_other_endpoints_are_passed_over(tmp_path: Path) -> None:
    content = b'{"requests": [{"path": "/models", "response": {"data": []}}, {"path": "%s", "response": %s}]}'
    for number, path in enumerate((b"/classifications/task", b"https://api.test/api/v1/classifications/task/")):
        (item,) = found(write(tmp_path / f"{number}.json", content % (path, ONE)))
        assert (item.source, item.body) == (f"{number}.json", ONE)


@pytest.mark.parametrize("asked", ["?window=7d", "/?window=7d#top", "#top"])
def test_what_follows_a_requests_path_does_not_matter(tmp_path: Path, asked: str) -> None:
    content = b'{"requests": [{"path": "/classifications/task%s", "response": %s}]}' % (asked.encode(), ONE)
    assert [item.body for item in found(write(tmp_path / "e.json", content))] == [ONE]


def test_an_envelope_of_other_endpoints_alone_says_so(tmp_path: Path) -> None:
    content = b'{"requests": [{"path": "/models", "status": 200, "response": {"data": []}}]}'
    (fault,) = faults(write(tmp_path / "e.json", content))
    assert fault.source == "e.json"
    assert "asked /classifications/task" in fault.reason


@pytest.mark.parametrize("response", [b', "response": {"error": {"code": 429}}', b""])
def test_a_request_that_failed_is_named_and_the_others_are_read(tmp_path: Path, response: bytes) -> None:
    failed = b'{"path": "/classifications/task", "status": 429%s}' % response
    content = b'{"requests": [%s, {"response": %s}]}' % (failed, TWO)
    first, second = read(write(tmp_path / "e.json", content))
    assert isinstance(first, NoAnswer)
    assert isinstance(second, FoundAnswer)
    assert (first.source, second.source) == ("e.json[1]", "e.json[2]")
    assert "429" in first.reason


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (b'{"path": "/classifications/task", "status": null, "response": null, "error": "timeout"}', "status null"),
        (b'{"path": "/classifications/task", "status": "200", "response": %s}' % ONE, 'status "200"'),
        (b'{"path": null, "status": 200, "response": %s}' % ONE, "not as in an envelope"),
        (b'"none"', "not as in an envelope"),
        (b"null", "not as in an envelope"),
        (b'{"status": 200, "response": {"error": {"code": 429}}}', 'an error of the API: {"code": 429}'),
        (b'{"status": 200, "response": null}', "neither an answer"),
        (b'{"status": 200, "response": [7]}', "neither an answer"),
    ],
)
def test_an_odd_request_is_refused_by_itself(tmp_path: Path, odd: bytes, reason: str) -> None:
    other = b'{"path": "/models", "status": "odd too, but not asked for"}'
    first, second = read(
        write(tmp_path / "e.json", b'{"requests": [%s, %s, {"status": 200, "response": %s}]}' % (other, odd, TWO))
    )
    assert isinstance(first, NoAnswer)
    assert isinstance(second, FoundAnswer)
    assert (first.source, second.source, second.body) == ("e.json[1]", "e.json[2]", TWO)
    assert reason in first.reason


def test_an_envelope_may_have_a_place_for_data(tmp_path: Path) -> None:
    content = b'{"data": null, "requests": [{"response": %s}]}' % ONE
    assert [item.body for item in found(write(tmp_path / "e.json", content))] == [ONE]
    answered = TWO.replace(b"{", b'{"requests": [], ', 1)
    assert [item.body for item in found(write(tmp_path / "a.json", answered))] == [answered]


@pytest.mark.parametrize("requests", [b"null", b"{}", b"[7]"])
def test_an_envelope_of_another_shape_says_so(tmp_path: Path, requests: bytes) -> None:
    (fault,) = faults(write(tmp_path / "e.json", b'{"requests": %s}' % requests))
    assert "not as in an envelope" in fault.reason


# What is no answer


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"error": {"code": 429, "message": "slow down"}}', 'an error of the API: {"code": 429'),
        (b'{"models": []}', "neither an answer"),
        (b"[1]", "neither an answer"),
        (b'"data"', "neither an answer"),
        (b"null", "neither an answer"),
        (b"", "no JSON"),
        (b"\n", "no JSON"),
        (b"<html>\n<p>\n</html>", "no JSON"),
        (TWO[:-1], "no JSON"),
        (b"\x00\xff" * 400, "no JSON"),
        (b"[" * 100_000, "no JSON"),
        *((respelt(TWO)[:end], "no JSON") for end in (-1, -40, 200)),
        (respelt(TWO).replace(b",", b"", 1), "no JSON"),
        (b"[\n%s,\n%s,\n%s" % (ONE, TWO, ONE), "no JSON"),
        (b'{"data": {"classifications": [\n%s' % b"\n,\n".join([b'{"tag": "x"}'] * 9), "no JSON"),
        (zip_of([]), "no file that could hold answers"),
        (zip_of([("README", b"x")]), "no file that could hold answers"),
        (tar_of([("README", b"x")]), "no file that could hold answers"),
        (tar_of([("README", b"x")], gzipped=False), "no file that could hold answers"),
        (tar_of([]), "an empty .tar"),
        (tar_of([], gzipped=False), "an empty .tar"),
        (gzip.compress(gzip.compress(TWO)), "packed twice"),
        (gzip.compress(zip_of([("a.json", TWO)])), "packed twice"),
        (lzma.compress(TWO), "compressed with xz"),
        (bz2.compress(TWO), "compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd\x24\x00\x01\x00\x00", "compressed with zstd"),
        (gzip.compress(lzma.compress(TWO)), "compressed with xz"),
        (b"#!/bin/sh\n" + zip_of([("a.json", TWO)]), "a .zip that something stands before"),
        (TWO.decode().encode("utf-16"), "UTF-16"),
        (TWO.decode().encode("utf-16-be"), "UTF-16"),
        (gzip.compress(TWO)[:-9], "damaged"),
        (gzip.compress(TWO)[:200], "damaged"),
        (gzip.compress(TWO)[:-8] + b"\x00" * 8, "damaged"),
        (gzip.compress(b""), "no JSON"),
        (zip_of([("a.json", TWO)])[:-30], "damaged"),
        (tar_of([("a.json", TWO)])[:300], "damaged"),
        (tar_of([("a.json", TWO)], gzipped=False)[:2000], "damaged"),
    ],
)
def test_what_holds_no_answer_is_named_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (fault,) = faults(write(tmp_path / "it.json", content))
    assert fault.source.startswith("it.json")
    assert reason in fault.reason


def test_an_answer_before_the_break_in_a_tar_is_read(tmp_path: Path) -> None:
    packed = tar_of([("a.json", ONE), ("b.json", TWO)], gzipped=False)
    first, second = read(write(tmp_path / "cut.tar", packed[: len(ONE) + 2000]))
    assert isinstance(first, FoundAnswer)
    assert isinstance(second, NoAnswer)
    assert (first.source, second.source) == ("cut.tar/a.json", "cut.tar")


def test_a_broken_line_among_lines_is_the_only_one_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", b"\n".join([ONE, b"", TWO[:-40], b'{"x": 1}', TWO, b"\xff"]))
    assert [item.body for item in read(path) if isinstance(item, FoundAnswer)] == [ONE, TWO]
    assert [fault.source for fault in faults(path)] == ["l.jsonl:3", "l.jsonl:4", "l.jsonl:6"]


def test_a_broken_first_line_does_not_hide_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", b"<<<\n" + ONE + b"\n" + TWO)
    assert [item.source for item in read(path)] == ["l.jsonl:1", "l.jsonl:2", "l.jsonl:3"]
    assert [fault.source for fault in faults(path)] == ["l.jsonl:1"]


def test_a_damaged_member_is_named_and_those_after_it_are_read(tmp_path: Path) -> None:
    members = [("a.json.gz", gzip.compress(ONE)[:-20]), ("b.json", ONE[:-1]), ("c.json", TWO)]
    for name, packed in (("m.zip", zip_of(members)), ("m.tar.gz", tar_of(members))):
        path = write(tmp_path / name, packed)
        assert [fault.source for fault in faults(path)] == [f"{name}/a.json.gz", f"{name}/b.json"]
        assert read(path)[-1].source == f"{name}/c.json"


def test_an_answer_with_nan_is_an_answer_for_the_contracts_to_judge(tmp_path: Path) -> None:
    body = TWO.replace(b"0.", b"NaN, 0.", 1).replace(b"NaN, 0.", b'NaN, "x": 0.', 1)
    assert b"NaN" in body
    (item,) = found(write(tmp_path / "nan.json", body))
    assert item.body == body


def test_archives_in_an_archive_are_named_not_opened(tmp_path: Path) -> None:
    members = [("a.json", ONE), ("b.json", ONE)]
    inner = [("zip.zip", zip_of(members)), ("tar.tgz", tar_of(members)), ("b.json", TWO)]
    for name, packed in (("outer.zip", zip_of(inner)), ("outer.tar.gz", tar_of(inner))):
        path = write(tmp_path / name, packed)
        items = read(path)
        assert [(fault.source, fault.reason) for fault in faults(path)] == [
            (f"{name}/{inside}", "it is an archive in an archive; unpack it first") for inside in ("zip.zip", "tar.tgz")
        ]
        assert items[-1].source == f"{name}/b.json"


def test_an_answer_larger_than_any_is_no_answer(tmp_path: Path) -> None:
    (fault,) = faults(write(tmp_path / "large.json", TWO + b" " * 20_000_000))
    assert "larger than 20,000,000 bytes" in fault.reason


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "gone.json", TWO)
    (file,) = find_files([str(path)])
    path.unlink()
    (fault,) = read_answers(file)
    assert fault.source == "gone.json"
    assert "cannot be read: No such file" in str(fault)
    assert file.size == 0


def test_a_pipe_is_read_and_tells_no_time(tmp_path: Path) -> None:
    for name, content in (("plain", TWO), ("gzipped", gzip.compress(TWO)), ("zip", zip_of([("a.json", TWO)]))):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=[content])
        writer.start()
        (item,) = found(pipe)
        writer.join()
        assert (item.body, item.modified_at) == (TWO, None)


# Times and records


def test_a_files_own_time_is_told_in_utc_and_a_zips_is_not(tmp_path: Path) -> None:
    at = served(DAY, hours=2)
    assert found(write(tmp_path / "a.json", TWO, at))[0].modified_at == at
    assert found(write(tmp_path / "a.json.gz", gzip.compress(TWO, mtime=1), at))[0].modified_at == at
    assert found(write(tmp_path / "l.jsonl", ONE + b"\n" + TWO, at))[1].modified_at == at
    assert found(write(tmp_path / "e.json", envelope(ONE, TWO), at))[1].modified_at == at
    packed = tar_of([("a.json", TWO)], mtime=at.timestamp())
    assert found(write(tmp_path / "t.tgz", packed, at + timedelta(days=9)))[0].modified_at == at
    assert found(write(tmp_path / "z.zip", zip_of([("a.json", TWO)]), at))[0].modified_at is None


@pytest.mark.parametrize(("origin", "demo"), [("demo", True), ("api", False)])
def test_another_archive_brings_its_records_with_it(tmp_path: Path, origin: str, demo: bool) -> None:
    archive = Archive(tmp_path / "theirs")
    for hours, body in enumerate((TWO, respelt(TWO))):
        archive.put(body, fetched_at=served(DAY, hours), source="their source", origin=origin)
    items = found(archive.root)
    assert [item.source for item in items] == [f"theirs/2026-10-06/r{n}/task_classifications.json.gz" for n in (1, 2)]
    assert [(item.body, item.fetched_at, item.demo) for item in items] == [
        (TWO, served(DAY, 0), demo),
        (respelt(TWO), served(DAY, 1), demo),
    ]


def test_an_unknown_fetch_time_in_a_record_stays_unknown(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "theirs")
    kept = archive.put(TWO, fetched_at=None, source="a file", origin="import")
    imported_at = served(DAY).timestamp()
    os.utime(kept.record.path, (imported_at, imported_at))
    assert [(item.fetched_at, item.modified_at) for item in found(archive.root)] == [(None, None)]


def test_a_record_of_other_bytes_says_nothing_of_this_answer(tmp_path: Path) -> None:
    kept = Archive(tmp_path / "theirs").put(TWO, fetched_at=FETCHED, source="x", origin="demo")
    write(kept.record.path, gzip.compress(ONE))
    (item,) = found(kept.record.path)
    assert (item.fetched_at, item.demo) == (None, False)


@pytest.mark.parametrize("record", [b"", b"[]", b"{", b'{"sha256": 7}'])
def test_a_damaged_record_beside_an_answer_says_nothing(tmp_path: Path, record: bytes) -> None:
    write(tmp_path / "record.json", record)
    assert [item.fetched_at for item in found(write(tmp_path / "a.json.gz", TWO))] == [None]


# Files, folders, patterns


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A folder with answers at several depths, and other files among them."""
    folder = tmp_path / "history"
    for name in ("2026-10-05.json", "b/2026-10-06.json.gz", "b/c/2026-10-06.r2.json", "b/lines.ndjson"):
        write(folder / name, TWO)
    for name in (".hidden.json", ".git/x.json", "__MACOSX/b/._2026-10-06.json", "README.md", "b/notes.txt", "x.csv"):
        write(folder / name, b"no answer")
    return folder


ALL = ["2026-10-05.json", "b/2026-10-06.json.gz", "b/c/2026-10-06.r2.json", "b/lines.ndjson"]


def names(*paths: Path | str) -> list[str]:
    return [file.name for file in find_files([str(path) for path in paths])]


def test_a_folder_is_read_with_all_below_it_but_for_hidden_and_other_files(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(names(history)) == [f"history/{name}" for name in ALL]
    monkeypatch.chdir(history)
    assert sorted(names(".")) == [f"history/{name}" for name in ALL]
    assert len(found(".")) == 4


def test_hidden_members_and_other_files_in_archives_are_passed_over(tmp_path: Path) -> None:
    members = [
        ("__MACOSX/._a.json", b"x"),
        ("a/.b.json", b"x"),
        (".c/d.json", b"x"),
        ("README", b"x"),
        ("./a.json", TWO),
        ("2026-10-05", ONE),
    ]
    for name, packed in (("z.zip", zip_of(members)), ("t.tar.gz", tar_of(members))):
        assert [item.source for item in found(write(tmp_path / name, packed))] == [
            f"{name}/a.json",
            f"{name}/2026-10-05",
        ]


@pytest.mark.parametrize(
    "content",
    [
        ONE,
        respelt(ONE),
        b"\xef\xbb\xbf\n " + ONE,
        b" [ " + ONE + b"]",
        envelope(ONE),
        gzip.compress(ONE),
        zip_of([("a.json", ONE)]),
        tar_of([("a.json", ONE)]),
        tar_of([("a.json", ONE)], gzipped=False),
    ],
)
def test_files_in_a_folder_are_told_by_what_they_hold(tmp_path: Path, content: bytes) -> None:
    for name in ("2026-10-05", "2026-10-05.txt"):
        assert len(found(write(tmp_path / name / name, content).parent)) == 1


@pytest.mark.parametrize("content", [lzma.compress(ONE), ONE.decode().encode("utf-16"), b'{"models": []}', zip_of([])])
def test_what_might_be_an_answer_is_not_passed_over_in_silence(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "in" / "2026-10-06.txt", TWO)
    write(tmp_path / "in" / "2026-10-05.txt", content)
    assert [fault.source for fault in faults(tmp_path / "in")] == ["in/2026-10-05.txt"]


@pytest.mark.parametrize(
    "content", [b"", b"[section]\n", b"[![badge](x)]\n", b"{% if x %}", b"\x89PNG\r\n", b"as_of,tag\n"]
)
def test_what_cannot_be_an_answer_is_passed_over(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "in" / "2026-10-06.txt", TWO)
    write(tmp_path / "in" / "other", content)
    os.mkfifo(tmp_path / "in" / "pipe.json")
    assert len(found(tmp_path / "in")) == 1


def test_a_name_that_is_no_utf_8_is_told_as_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"d\xff\xe9")
    write(tmp_path / "in" / f"{name}.json", ONE)
    write(tmp_path / "in" / f"{name}.tar", tar_of([(f"{name}.json", ONE), (f"{name}-none.json", b"{}")]))
    write(tmp_path / "in" / name / "x.json", b"{}")
    shown = r"d\udcff\udce9"
    assert {item.source for item in read(tmp_path / "in")} == {
        *(f"in/{shown}.json", f"in/{shown}.tar/{shown}.json", f"in/{shown}.tar/{shown}-none.json"),
        f"in/{shown}/x.json",
    }
    assert [item.source for item in read(tmp_path / "in" / f"{name}.json")] == [f"{shown}.json"]
    with pytest.raises(NoSuchFileError) as error:
        find_files([f"{name}-gone.json"])
    assert str(error.value).isascii()


READ = """
import sys
from orpipeline.importing.formats import AnswerFile, NoSuchFileError, find_files, read_answers
try:
    for file in find_files(sys.argv[1:]):
        for item in read_answers(file):
            print(item.source, getattr(item, "reason", "read"), sep=": ")
except NoSuchFileError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may read all")
def test_what_may_not_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    for name in ("a.json", "locked/b.json", "secret"):
        write(tmp_path / "in" / name, TWO)
    (tmp_path / "in" / "secret").chmod(0)
    (tmp_path / "in" / "locked").chmod(0)
    capabilities = "-dac_override,-dac_read_search"
    drop = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"] if os.geteuid() == 0 else []

    def said(*paths: str) -> list[str]:
        command = [*drop, sys.executable, "-c", READ, *paths]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert said("in", "in/secret") == [
        "in/a.json: read",
        "in/locked: it cannot be listed: Permission denied",
        "in/secret: it cannot be read: Permission denied",
    ]
    for given_path in ("in/locked", "in/locked/b.json", "in/locked/*.json"):
        assert said("in", given_path) == [f"{given_path}: it cannot be read: Permission denied. Nothing was imported."]
    (tmp_path / "in" / "locked").chmod(0o700)


def test_a_file_that_is_named_is_read_though_it_is_hidden_or_has_another_suffix(tmp_path: Path) -> None:
    for name in (".hidden.json", "answer.txt"):
        assert len(found(write(tmp_path / name, TWO))) == 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.json", ["2026-10-05.json"]),
        ("b/2026-1?-0[56].json.gz", ["2026-10-06.json.gz"]),
        ("**/*.r2.json", ["2026-10-06.r2.json"]),
        ("b/[c]", ["c/2026-10-06.r2.json"]),
    ],
)
@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_a_pattern_names_files_and_folders(
    history: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: list[str], absolute: bool
) -> None:
    monkeypatch.chdir(history)
    assert names(history / pattern if absolute else pattern) == expected


def test_a_path_that_exists_is_no_pattern_whatever_its_characters(tmp_path: Path) -> None:
    write(tmp_path / "a.json", ONE)
    assert names(write(tmp_path / "[a].json", TWO)) == ["[a].json"]


def test_the_home_folders_sign_means_what_it_means_in_a_shell(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(history))
    assert names("~/2026-10-05.json") == ["2026-10-05.json"]


def test_what_several_paths_name_is_read_once(history: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(history / "2026-10-05.json")
    (history / "b" / "again").symlink_to(history, target_is_directory=True)
    (history / "b" / "twice.json").symlink_to(history / "2026-10-05.json")
    assert len(names(history, history / "b", link, history / "*.json", history / "2026-10-05.json")) == 4


def test_links_to_folders_are_followed_and_loops_are_not(history: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "x.json", TWO)
    (tmp_path / "elsewhere" / "back").symlink_to(history)
    (history / "b" / "self").symlink_to(".")
    (history / "b" / "link").symlink_to(tmp_path / "elsewhere")
    assert sorted(names(history)) == sorted(f"history/{name}" for name in [*ALL, "b/link/x.json"])


def test_links_that_lead_nowhere_are_passed_over(history: Path) -> None:
    (history / "loop.json").symlink_to("loop.json")
    (history / "dangling.json").symlink_to("gone.json")
    assert len(names(history)) == 4


@pytest.mark.parametrize(
    ("given_path", "reason"),
    [
        *(
            (name, "there is no file that could hold answers")
            for name in ("gone.json", "gone-*.json", "empty", "gone/**")
        ),
        ("loop", "Too many levels of symbolic links"),
        ("2026-10-05.json/x", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("~nobody-of-this-name/x", "home directory"),
        ("a\0b", "null byte"),
    ],
    ids=["gone", "pattern", "empty", "below", "loop", "file", "long", "home", "zero"],
)
def test_a_path_that_names_nothing_ends_it_before_anything_is_read(
    history: Path, monkeypatch: pytest.MonkeyPatch, given_path: str, reason: str
) -> None:
    monkeypatch.chdir(history)
    (history / "empty").mkdir()
    (history / "loop").symlink_to("loop")
    with pytest.raises(NoSuchFileError, match=reason) as error:
        find_files([str(history), given_path])
    assert str(error.value).startswith(f"{given_path}: ")


# Whatever the way in


def _say_more(body: bytes) -> bytes:
    """Return an answer with a field that nobody documented, which is not read by the fast path."""
    text = body.rstrip()
    assert text.endswith(b"}")
    return text[:-1] + b', "notes": null}'


def assert_reads_the_same_either_way(day: date, body: bytes) -> None:
    fast, close = parse([(day, body)]), parse([(day, _say_more(body))])
    for name in ("answers", "task_classifications", "macro_categories", "task_models"):
        assert_frame_equal(getattr(fast, name), getattr(close, name), check_exact=True)
    assert (fast.originals, list(fast.defects)) == (close.originals, list(close.defects))
    assert close.unknown_fields[day] - fast.unknown_fields.get(day, frozenset()) == {"notes"}


@pytest.mark.parametrize(
    "bend", [None, *(violation.bend for violation in VIOLATIONS)], ids=["whole", *map(str, VIOLATIONS)]
)
def test_an_answer_reads_the_same_fast_and_closely(bend: Bend | None) -> None:
    assert_reads_the_same_either_way(DAY, answer(bend=bend))


_NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)


@settings(max_examples=60, deadline=None)
@given(share=_NUMBERS, window=_NUMBERS, text=st.text(), as_of=st.one_of(st.dates().map(str), st.text()))
def test_any_figure_and_text_reads_the_same_fast_and_closely(share: str, window: str, text: str, as_of: str) -> None:
    task = (
        f'{{"tag": {json.dumps(text)}, "display_name": {json.dumps(text, ensure_ascii=False)}, "macro_category": "x", '
        f'"usage_share": {share}, "token_share": 0.1, "category_usage_share": 1, "category_token_share": 0, '
        f'"models": [{{"id": "a/b", "tag_usage_share": {share}, "tag_token_share": 0.30}}]}}'
    )
    macro = f'{{"key": "x", "label": {json.dumps(text)}, "usage_share": {share}, "token_share": 1.0}}'
    body = (
        f'{{"data": {{"as_of": {json.dumps(as_of)}, "window_days": {window}, "classifications": [{task}], '
        f'"macro_categories": [{macro}]}}}}'
    )
    assert_reads_the_same_either_way(DAY, body.encode())


@pytest.mark.parametrize(
    "content",
    [ONE + b"\n" + TWO, zip_of([(f"{n}.json", TWO) for n in range(40)]), tar_of([("a.json", ONE), ("b.json", TWO)])],
)
def test_progress_is_told_as_answers_come_and_adds_up_to_the_files_size(tmp_path: Path, content: bytes) -> None:
    file = AnswerFile(write(tmp_path / "many", content), "many")
    told: list[int] = []
    steps = [sum(told) for _ in read_answers(file, told.append)]
    assert sum(told) == file.size == len(content)
    assert steps == sorted(steps)
    assert steps[-1] <= file.size
    if len(steps) > 2:
        assert len(set(steps)) > 10


def test_an_empty_path_does_not_mean_this_folder() -> None:
    with pytest.raises(NoSuchFileError, match="a path is empty"):
        find_files([""])
