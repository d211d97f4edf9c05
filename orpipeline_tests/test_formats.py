"""Which files are imported, and the responses in them, byte for byte."""

from __future__ import annotations

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
from pathlib import Path

import pytest

from orpipeline.archive import Archive
from orpipeline.errors import SettingsError
from orpipeline.importing.files import find_files, read_responses
from orpipeline.importing.responses import FoundResponse, Rejected
from orpipeline.testing import sample_response
from orpipeline_tests.imports import envelope, found, read, rejected, respelt, served, tar_of, write, zip_of
from orpipeline_tests.responses import DAY
from orpipeline_tests.world import local

BEFORE = DAY - timedelta(days=1)
ONE, TWO = sample_response(BEFORE), sample_response(DAY)
PRETTY = respelt(ONE)
FETCHED = served(DAY)
STATED = FETCHED.isoformat().encode()
UNUSUAL = (
    b'{ "data" :{"as_of":"2026-10-06" ,\t"window_days":7,"classifications":[{"tag":"m\\u0061th","usage_share":0.30,'
    b'"name":"\\ud83d\\ude00 }{ \xc3\xa9"}],\r\n "macro_categories":[ ] }  }'
)


@pytest.mark.parametrize(
    ("name", "content", "sources"),
    [
        ("one.json", TWO, ["one.json"]),
        ("really-gzipped.json", gzip.compress(TWO), ["really-gzipped.json"]),
        ("no-suffix", b"\xef\xbb\xbf" + TWO, ["no-suffix"]),
        ("two.jsonl", ONE + b"\n\n" + TWO + b"\n", ["two.jsonl:1", "two.jsonl:3"]),
        ("dos.jsonl.gz", gzip.compress(ONE + b"\r\n" + TWO), ["dos.jsonl.gz:1", "dos.jsonl.gz:2"]),
        ("appended.json", ONE + TWO, ["appended.json:1", "appended.json:1"]),
        ("list.json", b"[" + ONE + b",\n " + TWO + b"]", ["list.json[1]", "list.json[2]"]),
        ("envelopes.json", b"[%s,%s]" % (envelope(ONE), TWO), ["envelopes.json[1]", "envelopes.json[2]"]),
        ("envelope.json", envelope(ONE, TWO), ["envelope.json[1]", "envelope.json[2]"]),
        (
            "z.zip",
            zip_of([("a.json.gz", gzip.compress(ONE)), ("b/c.json", TWO)]),
            ["z.zip/a.json.gz", "z.zip/b/c.json"],
        ),
        ("t.tar", tar_of([("./a.jsonl", ONE + b"\n" + TWO)], gzipped=False), ["t.tar/a.jsonl:1", "t.tar/a.jsonl:2"]),
        ("t.tar.gz", tar_of([("../a.json", ONE), ("/etc/b", TWO)]), ["t.tar.gz/../a.json", "t.tar.gz//etc/b"]),
    ],
)
def test_each_response_is_found_whatever_the_files_name_and_has_its_place_in_its_source(
    tmp_path: Path, name: str, content: bytes, sources: list[str]
) -> None:
    items = found(write(tmp_path / "in" / name, content))
    assert [item.source for item in items] == sources
    assert [item.body for item in items] == [ONE, TWO][-len(sources) :]
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == ["in", f"in/{name}"]  # none unpacked


@pytest.mark.parametrize(
    "text",
    [
        b'{"fetched_at": "%s", "requests": [{"path": "/models"}, {"status": 200, "response": %s}]}',
        b'{"fetched_at": "%s", "response": %s}',
        b'{"_provenance": {"retrieved_at": "%s"}, "raw": %s}',
        b'{"meta": {"n": 1}, "at": {"fetched_at": "%s"}, "body": {"json": [%s]}}',
        b'[[{"days": {"x": {"fetched_at": "%s", "y": %s}}}]]',
    ],
    ids=["requests", "response", "provenance", "list", "deep"],
)
def test_a_response_keeps_its_exact_bytes_and_fetch_time_whatever_is_around_it(tmp_path: Path, text: bytes) -> None:
    (item,) = found(write(tmp_path / "e.json.gz", gzip.compress(text % (STATED, UNUSUAL))))
    assert (item.source, item.body, item.fetched_at) == ("e.json.gz", UNUSUAL, FETCHED)


def test_the_data_of_a_response_alone_is_completed(tmp_path: Path) -> None:
    data = json.dumps(json.loads(TWO)["data"], separators=(",", ":")).encode()
    wrapped = b'{"fetched_at": "%s", "snapshot": %s}' % (STATED, data)
    alone, inside = found(write(tmp_path / "a.json", data), write(tmp_path / "b.json", wrapped))
    assert (alone.body, inside.body, inside.fetched_at) == (TWO, TWO, FETCHED)


def test_the_nearest_fetch_time_counts(tmp_path: Path) -> None:
    each = [served(BEFORE, hours=3), served(DAY, hours=4)]
    content = envelope(ONE, TWO, fetched_at=FETCHED, each=each)
    assert [item.fetched_at for item in found(write(tmp_path / "e.json", content))] == each


@pytest.mark.parametrize(
    ("stated", "fetched_at"),
    [
        ('"2026-10-07T09:20:03.5+09:00"', datetime(2026, 10, 7, 0, 20, 3, 500000, tzinfo=UTC)),
        ('"2026-10-07T00:20:03"', datetime(2026, 10, 7, 0, 20, 3, tzinfo=UTC)),
        ('"yesterday"', None),
        ('"0001-01-01T00:00:00+14:00"', None),
        ("1791332403", None),
    ],
)
def test_a_fetch_time_is_read_as_utc_and_an_unreadable_one_is_unknown(
    tmp_path: Path, stated: str, fetched_at: datetime | None
) -> None:
    (item,) = found(write(tmp_path / "e.json", b'{"fetched_at": %s, "response": %s}' % (stated.encode(), ONE)))
    assert item.fetched_at == fetched_at


# What is rejected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"error": {"code": 429, "message": "slow down"}}', 'it has no response; it begins with {"error"'),
        (envelope(b'{"error": 1}'), "it has no response"),
        (b'{"models": []}', "it has no response"),
        (b"", "not valid JSON: it is empty"),
        (b"<html>\n<p>\n</html>", "not valid JSON"),
        (TWO[:-1], "not valid JSON"),
        (TWO.replace(b'"usage_share":0', b'"usage_share":NaN,"x":0', 1), "not valid JSON"),
        (TWO.decode().encode("utf-16"), "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (lzma.compress(TWO), "not valid JSON"),
        (gzip.compress(gzip.compress(TWO)), "not valid JSON"),
        (TWO.replace(b"{", b'{"x":"%s",' % (b" " * 2_000_000), 1), "larger than 2,000,000 bytes"),
        (zip_of([]), "no file that may hold responses"),
        (tar_of([("README", b"x")]), "no file that may hold responses"),
        (gzip.compress(TWO)[:-9], "damaged"),
        (gzip.compress(TWO)[:-8] + b"\x00" * 8, "damaged"),
        (zip_of([("a.json", TWO)])[:-30], "damaged"),
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


def test_a_damaged_value_is_rejected_and_the_others_in_its_text_are_read(tmp_path: Path) -> None:
    cut = PRETTY[:-40]
    content = b"\n".join([b"<<<", cut, ONE, b'{"x": 1}', PRETTY, TWO + b"\xff"])
    items = read(write(tmp_path / "l.json", content))
    first, last = 3 + cut.count(b"\n"), 6 + cut.count(b"\n") + PRETTY.count(b"\n")
    assert [item.source.removeprefix("l.json:") for item in items if isinstance(item, Rejected)] == [
        *("1", "2", str(first + 1), str(last))
    ]
    assert [item.body for item in items if isinstance(item, FoundResponse)] == [ONE, PRETTY, TWO]


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
def test_a_damaged_member_is_rejected_and_the_others_are_read(tmp_path: Path, name: str) -> None:
    members = [
        ("a.json.gz", gzip.compress(ONE)[:-20]),
        ("b.json", ONE[:-1]),
        ("zip.zip", zip_of([("a.json", ONE)])),
        ("tar.tgz", tar_of([("a.json", ONE)])),
        ("__MACOSX/._c.json", b"\0\5\26\7"),
        (".c/.d.json", b"x"),
        ("README", b"x"),
        (".hidden/c", TWO),
    ]
    path = write(tmp_path / name, zip_of(members) if name.endswith("zip") else tar_of(members))
    reasons = {item.source.partition(":")[0]: item.reason for item in rejected(path)}
    assert list(reasons) == [f"{name}/{member}" for member, _ in members[:4]]
    assert [reason.startswith("it is an archive inside") for reason in reasons.values()] == [False, False, True, True]
    assert [item.source for item in read(path) if isinstance(item, FoundResponse)] == [f"{name}/.hidden/c"]


def test_a_zip_member_that_cannot_be_unpacked_is_rejected_and_the_others_are_read(tmp_path: Path) -> None:
    packed = zip_of([("a.json", ONE), ("b.json", TWO)], zipfile.ZIP_STORED).replace(b'"data"', b'"dXta"', 1)
    checksum = read(write(tmp_path / "days.zip", packed))
    compression = read(write(tmp_path / "days.zip", zip_of([("a.json", ONE)], zipfile.ZIP_LZMA)))
    assert [isinstance(item, Rejected) for item in (*checksum, *compression)] == [True, False, True]
    assert {item.source for item in (checksum[0], *compression)} == {"days.zip/a.json"}


@pytest.mark.parametrize("damage", [b"x" * 512, b"x"], ids=["another header", "a cut header"])
def test_a_damaged_header_in_a_tar_is_not_taken_for_its_end(tmp_path: Path, damage: bytes) -> None:
    packed = tar_of([("a.json", ONE), ("b.json", TWO)], gzipped=False)
    first, second = read(write(tmp_path / "t.tar", packed[: packed.index(b"b.json")] + damage))
    assert [isinstance(item, Rejected) for item in (first, second)] == [False, True]
    assert (first.source, second.source) == ("t.tar/a.json", "t.tar")


def test_links_in_archives_are_not_followed(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.json")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    packed = member.tobuf(tarfile.GNU_FORMAT) + tar_of([("b.json", TWO)], gzipped=False)
    assert [item.source for item in found(write(tmp_path / "t.tar", packed))] == ["t.tar/b.json"]
    link = zipfile.ZipInfo("a.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert [item.source for item in rejected(tmp_path / "z.zip")] == ["z.zip/a.json:1"]


def test_pipes_devices_and_deleted_files_are_rejected_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (file,) = find_files([str(write(tmp_path / "gone.json", TWO))])
    file.path.unlink()
    items = [*read(tmp_path / "pipe.json", "/dev/zero"), *read_responses(file)]
    assert [item.source for item in items] == ["pipe.json", "zero", "gone.json"]
    reasons = [item.reason for item in items if isinstance(item, Rejected)]
    assert ["pipe or a device" in reason for reason in reasons] == [True, True, False]
    assert "cannot be read: No such file" in reasons[2]


# Times


def test_the_time_in_a_files_name_or_else_when_it_was_written_is_known(tmp_path: Path) -> None:
    at, later = served(DAY, hours=2), served(DAY, hours=30)
    named = f"{at:%Y%m%dT%H%M%SZ}-3e39cf29aaa6.json"
    packed = tar_of([("a.json", TWO)], mtime=at.timestamp())
    paths = [
        write(tmp_path / named, TWO, later),
        write(tmp_path / "n.zip", zip_of([(f"x/tasks_{named}", TWO)]), later),
        write(tmp_path / "a.json.gz", gzip.compress(TWO, mtime=1), at),
        write(tmp_path / "t.tgz", packed, later),
        write(tmp_path / "99999999T999999Z.json", TWO, at),
    ]
    assert [item.saved_at for item in found(*paths)] == [at] * 5
    # A zip has local times without a time zone.
    unknown = [
        write(tmp_path / "t.tar", tar_of([("a.json", TWO)], mtime=10**12, gzipped=False), at),
        write(tmp_path / "z.zip", zip_of([("a.json", TWO)]), at),
    ]
    assert [item.saved_at for item in found(*unknown)] == [None, None]


# Files, folders, patterns


ALL = ["2026-10-05.json", "b/2026-10-06.json.gz", "b/c/2026-10-06.r2.json", "b/lines.txt"]


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """A folder with responses at several depths and other files among them."""
    folder = tmp_path / "history"
    for name in ALL:
        write(folder / name, TWO)
    for name in (".hidden.json", ".git/x", "__MACOSX/b/._2026-10-06.json", "README.md", "b/notes.txt", "x.csv"):
        write(folder / name, b"{% not a response")
    os.mkfifo(folder / "pipe")
    return folder


def sources(*paths: Path | str) -> list[str]:
    return [item.source for item in found(*paths)]


def test_a_folder_is_searched_with_everything_below_it_and_other_files_are_skipped(
    history: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [f"history/{name}" for name in ALL]
    assert sources(history) == expected
    monkeypatch.chdir(history)
    assert sources(".") == expected


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_an_archive_in_a_hidden_folder_of_a_backup_is_found(tmp_path: Path, packed: bool) -> None:
    home = tmp_path / "home"
    archive = Archive(home / ".local" / "share" / "orpipeline" / "raw")
    stored = local(archive.put(TWO, fetched_at=FETCHED, source="the API", origin="api").revision.path)
    write(stored.with_name(stored.name + ".damaged"), gzip.compress(ONE))
    write(home / ".2026-10-05.json", ONE)
    backup = home
    if packed:
        files = [file for file in sorted(home.rglob("*")) if file.is_file()]
        backup = write(tmp_path / "home.zip", zip_of([(str(f.relative_to(home)), f.read_bytes()) for f in files]))
    hidden, kept = found(backup)
    assert (hidden.source, kept.source) == (
        f"{backup.name}/.2026-10-05.json",
        f"{backup.name}/{stored.relative_to(home)}",
    )
    assert (kept.fetched_at, kept.origin) == (FETCHED, "api")


def test_what_may_have_been_a_response_is_not_skipped_in_silence(tmp_path: Path) -> None:
    for name, content in {"a.json.xz": lzma.compress(ONE), "b.json": b"", "c": zip_of([]), "d": b'{"x": 1}'}.items():
        write(tmp_path / "in" / name, content)
    assert {item.source.partition(":")[0] for item in rejected(tmp_path / "in")} == {
        f"in/{name}" for name in ("a.json.xz", "b.json", "c", "d")
    }


def test_a_name_that_is_not_valid_utf_8_is_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"d\xff\xe9")
    write(tmp_path / "in" / f"{name}.tar", tar_of([(f"{name}.json", ONE)]))
    assert sources(tmp_path / "in") == [r"in/d\udcff\udce9.tar/d\udcff\udce9.json"]
    with pytest.raises(SettingsError) as error:
        find_files([f"{name}-gone.json"])
    assert str(error.value).isascii()


READ = """
from orpipeline.importing.files import find_files, read_responses
for file in find_files(["in", "in/secret"]):
    for item in read_responses(file):
        print(item.source, getattr(item, "reason", "read"), sep=": ")
"""


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root can read everything")
def test_a_file_or_folder_without_read_permission_is_named_with_the_reason(tmp_path: Path) -> None:
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
    denied = "it cannot be read: Permission denied"
    assert done.stdout.splitlines() == ["in/a.json: read", f"in/locked: {denied}", f"in/secret: {denied}"]


@pytest.mark.parametrize("start", ["{history}/", "", "~/"], ids=["absolute", "relative", "home"])
def test_a_pattern_names_files_and_folders(history: Path, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    monkeypatch.chdir(history)
    monkeypatch.setenv("HOME", str(history))
    write(history / "[c]", ONE)
    patterns = ["b/2026-1?-0[56].json.gz", "**/*.r2.json", "[c]", "b/[c]"]
    named = [sources(start.format(history=history) + pattern) for pattern in patterns]
    assert named == [["2026-10-06.json.gz"], ["2026-10-06.r2.json"], ["[c]"], ["c/2026-10-06.r2.json"]]


def test_a_file_that_several_paths_or_links_name_is_read_once(history: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "x.JSON", TWO)
    (tmp_path / "elsewhere" / "back").symlink_to(history)
    (history / "b" / "self").symlink_to(".")
    (history / "b" / "link").symlink_to(tmp_path / "elsewhere")
    (history / "b" / "twice.json").symlink_to(history / "2026-10-05.json")
    (history / "loop.json").symlink_to("loop.json")
    (history / "dangling.json").symlink_to("gone.json")
    read_once = sources(history, history / "b", history / "*5.json")
    assert sorted(read_once) == sorted(f"history/{name}" for name in [*ALL, "b/link/x.JSON"])


@pytest.mark.parametrize(
    "path", ["gone.json", "gone-*.json", "empty", "loop", "2026-10-05.json/x", "~nobody-x/x", "a\0b", ""]
)
def test_a_path_that_names_nothing_is_an_error(history: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(history)
    (history / "empty").mkdir()
    (history / "loop").symlink_to("loop")
    with pytest.raises(SettingsError, match="no such file, or none that you may read") as error:
        find_files([str(history), path])
    assert str(error.value).startswith(path or "An empty path")
