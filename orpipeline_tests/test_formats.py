"""Which files are imported, and the responses in each file format, byte for byte."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest

from orpipeline.errors import SettingsError
from orpipeline.importing.discover import ResponseFile, find_files
from orpipeline.importing.formats import read_responses
from orpipeline.importing.responses import FoundResponse, Rejected
from orpipeline.openrouter.response import read_as_of
from orpipeline.testing import sample_response
from orpipeline_tests.imports import envelope, found, read, rejected, respelt, served, tar_of, write, zip_of
from orpipeline_tests.responses import DAY

BEFORE = DAY - timedelta(days=1)
ONE, TWO = sample_response(BEFORE), sample_response(DAY)
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
        ("no-suffix", respelt(TWO)),
        ("byte-order-mark.json", b"\xef\xbb\xbf" + TWO),
        ("one.jsonl", TWO + b"\n"),
    ],
)
def test_a_file_with_one_response_is_read_whatever_its_name(tmp_path: Path, name: str, content: bytes) -> None:
    (item,) = found(write(tmp_path / name, content))
    assert (item.source, item.fetched_at, item.origin) == (name, None, "import")
    assert json.loads(item.body) == json.loads(TWO)


@pytest.mark.parametrize(
    ("name", "content", "sources"),
    [
        ("two.jsonl", ONE + b"\n\n" + TWO + b"\n", ["two.jsonl:1", "two.jsonl:3"]),
        ("dos.jsonl", ONE + b"\r\n" + TWO, ["dos.jsonl:1", "dos.jsonl:2"]),
        ("two.jsonl.gz", gzip.compress(ONE + b"\n" + TWO), ["two.jsonl.gz:1", "two.jsonl.gz:2"]),
        ("list.json", b"[" + ONE + b",\n " + TWO + b"]", ["list.json[1]", "list.json[2]"]),
        ("envelope.json", envelope(ONE, TWO), ["envelope.json[1]", "envelope.json[2]"]),
        ("list.json.gz", gzip.compress(b"[%s,%s]" % (envelope(ONE), TWO)), ["list.json.gz[1]", "list.json.gz[2]"]),
        ("two.zip", zip_of([("a.json", ONE), ("b/c.json", TWO)]), ["two.zip/a.json", "two.zip/b/c.json"]),
        (
            "stored.zip",
            zip_of([("a.json.gz", gzip.compress(ONE)), ("b.json", TWO)], zipfile.ZIP_STORED),
            ["stored.zip/a.json.gz", "stored.zip/b.json"],
        ),
        ("two.tar", tar_of([("a.json", ONE), ("b.json", TWO)], gzipped=False), ["two.tar/a.json", "two.tar/b.json"]),
        ("tar.zip", tar_of([("./a.jsonl", ONE + b"\n" + TWO)]), ["tar.zip/a.jsonl:1", "tar.zip/a.jsonl:2"]),
    ],
)
def test_each_response_in_a_file_has_its_place_in_its_source(
    tmp_path: Path, name: str, content: bytes, sources: list[str]
) -> None:
    items = found(write(tmp_path / name, content))
    assert [item.source for item in items] == sources
    assert [item.body for item in items] == [ONE, TWO]


# Envelopes


def test_a_response_keeps_its_exact_bytes_in_an_envelope(tmp_path: Path) -> None:
    items = found(write(tmp_path / "e.json.gz", gzip.compress(envelope(UNUSUAL, ONE, fetched_at=FETCHED))))
    assert [item.body for item in items] == [UNUSUAL, ONE]
    assert read_as_of(items[0].body) == DAY


def test_a_requests_fetch_time_takes_precedence_over_the_envelopes(tmp_path: Path) -> None:
    each = [served(BEFORE, hours=3), served(DAY, hours=4)]
    content = envelope(ONE, TWO, fetched_at=FETCHED, each=each)
    assert [item.fetched_at for item in found(write(tmp_path / "e.json", content))] == each


@pytest.mark.parametrize(
    ("stated", "fetched_at"),
    [
        ('"2026-10-07T00:20:03.123456Z"', datetime(2026, 10, 7, 0, 20, 3, 123456, tzinfo=UTC)),
        ('"2026-10-07T09:20:03+09:00"', datetime(2026, 10, 7, 0, 20, 3, tzinfo=UTC)),
        ('"2026-10-07T00:20:03"', datetime(2026, 10, 7, 0, 20, 3, tzinfo=UTC)),
        ('"yesterday"', None),
        ('"0001-01-01T00:00:00+14:00"', None),
        ("1791332403", None),
        ("null", None),
    ],
)
def test_a_fetch_time_is_read_as_utc_and_an_unreadable_one_is_unknown(
    tmp_path: Path, stated: str, fetched_at: datetime | None
) -> None:
    content = b'{"fetched_at": %s, "requests": [{"response": %s}]}' % (stated.encode(), ONE)
    (item,) = found(write(tmp_path / "e.json", content))
    assert item.fetched_at == fetched_at


@pytest.mark.parametrize("path", ["", "https://api.test/api/v1", "/?window=7d#top"])
def test_requests_for_other_endpoints_are_skipped(tmp_path: Path, path: str) -> None:
    url = f"/classifications/task{path}" if path.startswith("/") else f"{path}/classifications/task"
    content = b'{"requests": [{"path": "/models", "status": "x"}, {"path": "%s", "response": %s}]}'
    (item,) = found(write(tmp_path / "e.json", content % (url.encode(), ONE)))
    assert (item.source, item.body) == ("e.json", ONE)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b'{"status": 429, "response": {"error": {"code": 429}}}', "status 429"),
        (b'{"status": null, "response": null, "error": "timeout"}', "status null"),
        (b'{"path": null, "status": 200, "response": %s}' % ONE, "not that of an envelope"),
        (b'"none"', "not that of an envelope"),
        (b'{"status": 200, "response": {"error": {"code": 429}}}', 'an API error: {"code": 429}'),
        (b'{"status": 200, "response": [7]}', "neither a response"),
    ],
)
def test_an_unreadable_request_is_rejected_and_the_others_are_read(
    tmp_path: Path, request_: bytes, reason: str
) -> None:
    first, second = read(write(tmp_path / "e.json", b'{"requests": [%s, {"response": %s}]}' % (request_, TWO)))
    assert isinstance(first, Rejected)
    assert isinstance(second, FoundResponse)
    assert (first.source, second.source, second.body) == ("e.json[1]", "e.json[2]", TWO)
    assert reason in first.reason


def test_the_fields_data_and_requests_distinguish_response_and_envelope(tmp_path: Path) -> None:
    content = b'{"data": null, "requests": [{"response": %s}]}' % ONE
    assert [item.body for item in found(write(tmp_path / "e.json", content))] == [ONE]
    with_requests = TWO.replace(b"{", b'{"requests": [], ', 1)
    assert [item.body for item in found(write(tmp_path / "a.json", with_requests))] == [with_requests]


# Files without responses, and damaged files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"error": {"code": 429, "message": "slow down"}}', 'an API error: {"code": 429'),
        (b'{"models": []}', "neither a response"),
        (b"[1]", "neither a response"),
        (b'{"requests": {}}', "not those of an envelope"),
        (b'{"requests": [{"path": "/models", "response": {"data": []}}]}', "no request for /classifications/task"),
        (b"", "not valid JSON"),
        (b"<html>\n<p>\n</html>", "not valid JSON"),
        (TWO[:-1], "not valid JSON"),
        (b"\x00\xff" * 400, "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (respelt(TWO)[:-40], "not valid JSON"),
        (respelt(TWO).replace(b",", b"", 1), "not valid JSON"),
        (b"[\n%s,\n%s,\n%s" % (ONE, TWO, ONE), "not valid JSON"),
        (TWO + b" " * 2_000_000, "larger than 2,000,000 bytes"),
        (zip_of([]), "no file that may hold responses"),
        (tar_of([("README", b"x")]), "no file that may hold responses"),
        (tar_of([], gzipped=False), "not valid JSON"),
        (gzip.compress(gzip.compress(TWO)), "compressed twice"),
        (lzma.compress(TWO), "compressed with xz"),
        (gzip.compress(bz2.compress(TWO)), "compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd\x24\x00\x01\x00\x00", "compressed with zstd"),
        (b"#!/bin/sh\n" + zip_of([("a.json", TWO)]), "not valid JSON"),
        (TWO.decode().encode("utf-16"), "UTF-16"),
        (TWO.decode().encode("utf-16-be"), "UTF-16"),
        (gzip.compress(TWO)[:-9], "damaged"),
        (gzip.compress(TWO)[:-8] + b"\x00" * 8, "damaged"),
        (zip_of([("a.json", TWO)])[:-30], "damaged"),
        (zip_of([("é.json", TWO)]).replace("é".encode(), b"\xff\xff"), "damaged"),
        (tar_of([("a.json", TWO)])[:300], "damaged"),
        (tar_of([("a.json", TWO)], gzipped=False)[:2000], "damaged"),
    ],
)
def test_a_file_without_a_readable_response_is_rejected_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    items = read(write(tmp_path / "it.json", content))
    assert items
    for item in items:  # a damaged member of a tar, and the tar that cannot be read beyond it
        assert isinstance(item, Rejected)
        assert item.source.startswith("it.json")
        assert reason in item.reason


def test_an_unreadable_line_is_rejected_and_the_others_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "l.jsonl", b"\n".join([ONE, b"", TWO[:-40], b'{"x": 1}', TWO, b"\xff"]))
    assert [item.body for item in read(path) if isinstance(item, FoundResponse)] == [ONE, TWO]
    assert [item.source for item in rejected(path)] == ["l.jsonl:3", "l.jsonl:4", "l.jsonl:6"]
    first = write(tmp_path / "first.jsonl", b"<<<\n" + ONE + b"\n" + TWO)
    assert [item.source for item in rejected(first)] == ["first.jsonl:1"]
    assert len(read(first)) == 3


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
def test_an_unreadable_member_is_rejected_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    members = [
        ("a.json.gz", gzip.compress(ONE)[:-20]),
        ("b.json", ONE[:-1]),
        ("zip.zip", zip_of([("a.json", ONE)])),
        ("tar.tgz", tar_of([("a.json", ONE)])),
        ("c.json", TWO),
    ]
    path = write(tmp_path / name, zip_of(members) if name.endswith("zip") else tar_of(members))
    reasons = {item.source: item.reason for item in rejected(path)}
    assert list(reasons) == [f"{name}/{member}" for member, _ in members[:-1]]
    assert [reasons[f"{name}/{member}"] for member in ("zip.zip", "tar.tgz")] == [
        "it is an archive inside an archive; unpack it first"
    ] * 2
    assert [item.source for item in read(path) if isinstance(item, FoundResponse)] == [f"{name}/c.json"]


def test_a_zip_member_with_a_wrong_checksum_is_rejected_and_the_others_are_read(tmp_path: Path) -> None:
    packed = zip_of([("a.json", ONE), ("b.json", TWO)], zipfile.ZIP_STORED).replace(b'"data"', b'"dXta"', 1)
    first, second = read(write(tmp_path / "days.zip", packed))
    assert isinstance(first, Rejected)
    assert (first.source, second.source) == ("days.zip/a.json", "days.zip/b.json")


def test_a_damaged_lzma_member_is_rejected(tmp_path: Path) -> None:
    packed = zip_of([("a.json", ONE)], zipfile.ZIP_LZMA)
    start = packed.index(b"a.json") + len("a.json") + 20
    (item,) = rejected(write(tmp_path / "days.zip", packed[:start] + b"U" * 20 + packed[start + 20 :]))
    assert item.source == "days.zip/a.json"


def test_a_response_before_the_damage_in_a_tar_is_read(tmp_path: Path) -> None:
    packed = tar_of([("a.json", ONE), ("b.json", TWO)], gzipped=False)
    first, second, third = read(write(tmp_path / "cut.tar", packed[: len(ONE) + 2000]))
    assert [isinstance(item, Rejected) for item in (first, second, third)] == [False, True, True]
    assert (first.source, second.source, third.source) == ("cut.tar/a.json", "cut.tar/b.json", "cut.tar")


@pytest.mark.parametrize("damage", [b"x" * 512, b"x"], ids=["another header", "a cut header"])
def test_a_damaged_header_in_a_tar_is_not_taken_for_its_end(tmp_path: Path, damage: bytes) -> None:
    packed = tar_of([("a.json", ONE), ("b.json", TWO)], gzipped=False)
    path = write(tmp_path / "t.tar", packed[: packed.index(b"b.json")] + damage)
    first, second = read(path)
    assert isinstance(first, FoundResponse)
    assert isinstance(second, Rejected)
    assert (first.source, second.source) == ("t.tar/a.json", "t.tar")


def test_nan_is_not_json_and_other_lines_are_read(tmp_path: Path) -> None:
    with_nan = TWO.replace(b'"usage_share":0', b'"usage_share":NaN,"x":0', 1)
    assert b"NaN" in with_nan
    assert "not valid JSON" in rejected(write(tmp_path / "nan.json", with_nan))[0].reason
    items = read(write(tmp_path / "two.jsonl", with_nan + b"\n" + ONE))
    assert [(item.source, isinstance(item, FoundResponse)) for item in items] == [
        ("two.jsonl:1", False),
        ("two.jsonl:2", True),
    ]


def test_a_file_that_was_deleted_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "gone.json", TWO)
    (file,) = find_files([str(path)])
    path.unlink()
    (item,) = read_responses(file)
    assert isinstance(item, Rejected)
    assert (item.source, file.size) == ("gone.json", 0)
    assert "cannot be read: No such file" in item.reason


def test_a_pipe_or_device_is_rejected_by_name_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    write(tmp_path / "a.json", TWO)
    os.mkfifo(tmp_path / "b.json")
    items = read(tmp_path / "pipe.json", "/dev/zero", tmp_path)
    assert [(item.source, isinstance(item, FoundResponse)) for item in items] == [
        *(
            ("pipe.json", False),
            ("zero", False),
            (f"{tmp_path.name}/a.json", True),
            (f"{tmp_path.name}/b.json", False),
        )
    ]
    assert all("a pipe or a device" in item.reason for item in items if isinstance(item, Rejected))


# Times, and files of other archives


def test_the_time_when_a_file_or_tar_member_was_written_is_read_as_utc(tmp_path: Path) -> None:
    at = served(DAY, hours=2)
    assert found(write(tmp_path / "a.json.gz", gzip.compress(TWO, mtime=1), at))[0].modified_at == at
    assert found(write(tmp_path / "l.jsonl", ONE + b"\n" + TWO, at))[1].modified_at == at
    packed = tar_of([("a.json", TWO)], mtime=at.timestamp())
    assert found(write(tmp_path / "t.tgz", packed, at + timedelta(days=9)))[0].modified_at == at
    absurd = tar_of([("a.json", TWO)], mtime=10**12, gzipped=False)
    assert found(write(tmp_path / "t.tar", absurd))[0].modified_at is None
    # A zip has local times without a time zone.
    assert found(write(tmp_path / "z.zip", zip_of([("a.json", TWO)]), at))[0].modified_at is None


@pytest.mark.parametrize("name", ["20261007T003000Z-0123456789abcdef-demo.json.gz", "a.json.gz", "2026-10-06.json"])
def test_a_name_that_is_not_that_of_an_archives_file_states_nothing(tmp_path: Path, name: str) -> None:
    (item,) = found(write(tmp_path / "in" / name, TWO, FETCHED))
    assert (item.fetched_at, item.modified_at, item.origin) == (None, FETCHED, "import")


# Files, folders, patterns


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A folder with responses at several depths and other files among them."""
    folder = tmp_path / "history"
    for name in ALL:
        write(folder / name, TWO)
    for name in (".hidden.json", ".git/x.json", "__MACOSX/b/._2026-10-06.json", "README.md", "b/notes.txt", "x.csv"):
        write(folder / name, b"not a response")
    return folder


ALL = ["2026-10-05.json", "b/2026-10-06.json.gz", "b/c/2026-10-06.r2.json", "b/lines.ndjson"]


def names(*paths: Path | str) -> list[str]:
    return [file.name for file in find_files([str(path) for path in paths])]


def test_a_folder_is_searched_with_everything_below_it_except_hidden_and_other_files(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(history) == [f"history/{name}" for name in ALL]
    monkeypatch.chdir(history)
    assert names(".") == [f"history/{name}" for name in ALL]
    assert len(found(".")) == 4


@pytest.mark.parametrize("name", ["z.zip", "t.tar.gz"])
def test_hidden_members_and_other_files_in_archives_are_skipped(tmp_path: Path, name: str) -> None:
    members = [
        ("__MACOSX/._a.json", b"x"),
        ("a/.b.json", b"x"),
        (".c/d.json", b"x"),
        ("README", b"x"),
        ("./a.json", TWO),
        ("2026-10-05", ONE),
    ]
    path = write(tmp_path / name, zip_of(members) if name.endswith("zip") else tar_of(members))
    assert [item.source for item in found(path)] == [f"{name}/a.json", f"{name}/2026-10-05"]


@pytest.mark.parametrize("name", ["z.zip", "t.tar.gz"])
def test_a_member_whose_path_leaves_the_archive_is_read_and_nothing_is_extracted(tmp_path: Path, name: str) -> None:
    members = [("../a.json", ONE), ("/etc/b.json", TWO), ("../.git/e.json", ONE), ("..a.json", b"hidden")]
    path = write(tmp_path / "in" / name, zip_of(members) if name.endswith("zip") else tar_of(members))
    assert [item.source for item in found(path)] == [f"{name}/../a.json", f"{name}//etc/b.json"]
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == ["in", f"in/{name}"]


KINDS = ("SYMTYPE", "LNKTYPE", "CHRTYPE", "FIFOTYPE")


@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices_in_a_tar_with_a_responses_name_are_rejected(tmp_path: Path, kind: str) -> None:
    member = tarfile.TarInfo("a.json.gz")
    member.type, member.linkname = getattr(tarfile, kind), "b.json"
    rest = tar_of([("b.json", TWO)], gzipped=False)
    first, second = read(write(tmp_path / "t.tar", member.tobuf(tarfile.GNU_FORMAT) + rest))
    assert isinstance(first, Rejected)
    assert (first.source, second.source) == ("t.tar/a.json.gz", "t.tar/b.json")
    assert "a link or a device" in first.reason
    member.name = "README"
    assert len(found(write(tmp_path / "other.tar", member.tobuf() + rest))) == 1


def test_a_link_in_a_zip_is_rejected(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(link, "b.json")
        archive.writestr("b.json", TWO)
    assert [item.source for item in rejected(tmp_path / "z.zip")] == ["z.zip/a.json"]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_is_read(tmp_path: Path, format_: int) -> None:
    long = "/".join(["folder"] * 30) + "/é.json" if format_ != tarfile.USTAR_FORMAT else "folder/" * 20 + "e.json"
    at = served(DAY, hours=2) + timedelta(seconds=0.5 if format_ == tarfile.PAX_FORMAT else 0)
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz", format=format_, pax_headers={"comment": "of all"}) as archive:
        for name, content in ((long, ONE), ("folder", None), ("b.json", TWO)):
            member = tarfile.TarInfo(name)
            member.mtime = at.timestamp()
            if content is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, BytesIO(content))
    items = found(tmp_path / "t.tar.gz")
    assert [(item.source, item.body, item.modified_at) for item in items] == [
        (f"t.tar.gz/{long}", ONE, at),
        ("t.tar.gz/b.json", TWO, at),
    ]


def test_gzip_streams_one_after_another_and_padding_are_read(tmp_path: Path) -> None:
    content = gzip.compress(ONE[:100]) + gzip.compress(b"") + gzip.compress(ONE[100:]) + bytes(1000)
    assert [item.body for item in found(write(tmp_path / "a.json.gz", content))] == [ONE]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf\n " + ONE,
        b" [ " + ONE + b"]",
        envelope(ONE),
        gzip.compress(ONE),
        zip_of([("a.json", ONE)]),
        tar_of([("a.json", ONE)], gzipped=False),
    ],
)
def test_files_in_a_folder_are_detected_from_content(tmp_path: Path, content: bytes) -> None:
    assert len(found(write(tmp_path / "in" / "2026-10-05.txt", content).parent)) == 1


@pytest.mark.parametrize("content", [lzma.compress(ONE), ONE.decode().encode("utf-16"), b'{"models": []}', zip_of([])])
def test_a_file_that_might_be_a_response_is_rejected_and_not_skipped(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "in" / "2026-10-06.txt", TWO)
    write(tmp_path / "in" / "2026-10-05.txt", content)
    assert [item.source for item in rejected(tmp_path / "in")] == ["in/2026-10-05.txt"]


@pytest.mark.parametrize("content", [b"", b"[section]\n", b"[![badge](x)]\n", b"{% if x %}", b"\x89PNG\r\n"])
def test_a_file_that_cannot_be_a_response_is_skipped(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "in" / "2026-10-06.txt", TWO)
    write(tmp_path / "in" / "other", content)
    os.mkfifo(tmp_path / "in" / "pipe")
    assert len(found(tmp_path / "in")) == 1


def test_a_name_that_is_not_valid_utf_8_is_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"d\xff\xe9")
    write(tmp_path / "in" / f"{name}.json", ONE)
    write(tmp_path / "in" / f"{name}.tar", tar_of([(f"{name}.json", ONE), (f"{name}-other.json", b"{}")]))
    write(tmp_path / "in" / name / "x.json", b"{}")
    shown = r"d\udcff\udce9"
    assert {item.source for item in read(tmp_path / "in")} == {
        *(f"in/{shown}.json", f"in/{shown}.tar/{shown}.json", f"in/{shown}.tar/{shown}-other.json"),
        f"in/{shown}/x.json",
    }
    with pytest.raises(SettingsError) as error:
        find_files([f"{name}-gone.json"])
    assert str(error.value).isascii()


READ = """
import sys
from orpipeline.errors import SettingsError
from orpipeline.importing.discover import find_files
from orpipeline.importing.formats import read_responses
for paths in (["in", "in/secret"], ["in/locked"], ["in/locked/b.json"], ["in/locked/*.json"]):
    try:
        for file in find_files(paths):
            for item in read_responses(file):
                print(item.source, getattr(item, "reason", "read"), sep=": ")
    except SettingsError as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root can read everything")
def test_a_file_without_read_permission_is_named_with_the_reason(tmp_path: Path) -> None:
    for name in ("a.json", "locked/b.json", "secret"):
        write(tmp_path / "in" / name, TWO)
    (tmp_path / "in" / "secret").chmod(0)
    (tmp_path / "in" / "locked").chmod(0)
    capabilities = "-dac_override,-dac_read_search"
    drop = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"] if os.geteuid() == 0 else []
    try:
        done = subprocess.run([*drop, sys.executable, "-c", READ], capture_output=True, text=True, check=True)
    finally:
        (tmp_path / "in" / "locked").chmod(0o700)
    lines = [line.split(": ", 1) for line in done.stdout.splitlines()]
    assert [source for source, _ in lines] == [
        *("in/a.json", "in/locked", "in/secret", "in/locked", "in/locked/b.json", "in/locked/*.json")
    ]
    assert lines[0][1] == "read"
    assert all("Permission denied" in reason for _, reason in lines[1:])


def test_a_hidden_file_or_one_with_another_suffix_is_read_if_you_name_it(tmp_path: Path) -> None:
    for name in (".hidden.json", "response.txt"):
        assert len(found(write(tmp_path / name, TWO))) == 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("b/2026-1?-0[56].json.gz", ["2026-10-06.json.gz"]),
        ("**/*.r2.json", ["2026-10-06.r2.json"]),
        ("b/[c]", ["c/2026-10-06.r2.json"]),
    ],
)
@pytest.mark.parametrize("start", ["{history}/", "", "~/"], ids=["absolute", "relative", "home"])
def test_a_pattern_names_files_and_folders(
    history: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, expected: list[str], start: str
) -> None:
    monkeypatch.chdir(history)
    monkeypatch.setenv("HOME", str(history))
    assert names(start.format(history=history) + pattern) == expected


def test_an_existing_path_is_not_a_pattern_whatever_its_characters(tmp_path: Path) -> None:
    write(tmp_path / "a.json", ONE)
    assert names(write(tmp_path / "[a].json", TWO)) == ["[a].json"]


def test_a_file_that_several_paths_name_is_read_once(history: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(history / "2026-10-05.json")
    (history / "b" / "again").symlink_to(history, target_is_directory=True)
    (history / "b" / "twice.json").symlink_to(history / "2026-10-05.json")
    assert len(names(history, history / "b", link, history / "*.json", history / "2026-10-05.json")) == 4


def test_links_to_folders_are_followed_but_loops_and_broken_links_are_not(history: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "x.JSON", TWO)
    (tmp_path / "elsewhere" / "back").symlink_to(history)
    (history / "b" / "self").symlink_to(".")
    (history / "b" / "link").symlink_to(tmp_path / "elsewhere")
    (history / "loop.json").symlink_to("loop.json")
    (history / "dangling.json").symlink_to("gone.json")
    assert sorted(names(history)) == sorted(f"history/{name}" for name in [*ALL, "b/link/x.JSON"])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        *((name, "no such file, or none that may hold responses") for name in ("gone.json", "gone-*.json", "empty")),
        ("loop", "Too many levels of symbolic links"),
        ("2026-10-05.json/x", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("~no-such-user/x", "home directory"),
        ("a\0b", "null (byte|character)"),
        ("", "the path is empty"),
    ],
    ids=["gone", "pattern", "empty folder", "loop", "file", "long", "home", "null", "empty"],
)
def test_a_path_that_names_nothing_is_an_error(
    history: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    monkeypatch.chdir(history)
    (history / "empty").mkdir()
    (history / "loop").symlink_to("loop")
    with pytest.raises(SettingsError, match=reason) as error:
        find_files([str(history), path])
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "content",
    [ONE + b"\n" + TWO, zip_of([(f"{n}.json", TWO) for n in range(40)]), tar_of([("a.json", ONE), ("b.json", TWO)])],
)
def test_progress_grows_with_the_responses_and_adds_up_to_the_files_size(tmp_path: Path, content: bytes) -> None:
    file = ResponseFile(write(tmp_path / "many", content), "many")
    progress: list[int] = []
    after_each = [sum(progress) for _ in read_responses(file, progress.append)]
    assert sum(progress) == file.size == len(content)
    assert after_each == sorted(after_each)
    if len(after_each) > 2:
        assert len(set(after_each)) > 10
