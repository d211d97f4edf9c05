"""Files that unpack or expand to far more than they seem to hold: an import's memory and time stay bounded."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orpipeline.archive import Archive
from orpipeline.cli.options import dagster_home
from orpipeline.defs import imports as import_jobs
from orpipeline.importing.discover import find_files
from orpipeline.importing.formats import read_responses
from orpipeline.importing.importer import Imported, import_files
from orpipeline.importing.responses import FoundResponse, Rejected
from orpipeline.settings import load_settings
from orpipeline.testing import sample_response
from orpipeline_tests.commands import ORPIPELINE
from orpipeline_tests.imports import envelope, read, write, zip_of
from orpipeline_tests.responses import DAY

# In bytes. The command needs 240,000,000 for a tiny file, nearly all for its imports. tarfile reads a name at once.
MAX_MEMORY = 550_000_000
MAX_SECONDS = 15  # of processor time for a file, on any machine
MB = 1_000_000
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def gzipped(*pieces: tuple[bytes, int]) -> Callable[[Path], None]:
    """Return a function that writes pieces, each so many times, to a gzip file, in little memory."""

    def write_to(path: Path) -> None:
        with gzip.open(path, "wb", compresslevel=1) as file:
            for piece, times in pieces:
                at_once = max(1, MB // len(piece))
                for start in range(0, times, at_once):
                    file.write(piece * min(at_once, times - start))

    return write_to


def tar_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def with_hole(content: bytes, size: int) -> Callable[[Path], None]:
    """Return a function that writes a sparse file: it takes no space on the disk after its content."""

    def write_to(path: Path) -> None:
        path.write_bytes(content)
        os.truncate(path, size)

    return write_to


def containing(content: bytes) -> Callable[[Path], None]:
    def write_to(path: Path) -> None:
        path.write_bytes(content)

    return write_to


def zipped(name: str, lines: Iterable[bytes], compression: int = zipfile.ZIP_DEFLATED) -> Callable[[Path], None]:
    def write_to(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as archive, archive.open(name, "w") as member:
            for line in lines:
                member.write(line)

    return write_to


DATED = b'{"data":{"as_of":"%s",' % YESTERDAY.isoformat().encode()
BOMBS: dict[str, dict[str, Callable[[Path], None]]] = {
    "lines": {
        "newlines": gzipped((b"\n", 300 * MB)),
        "bad lines": gzipped((b'{"data":1}\n7\n', 500_000)),
        "lines without a day": gzipped((b'{"data":{}}\n', 500_000)),
        "blank lines": gzipped((b'{"data":1}\n', 2), (b"\n", 200 * MB)),
        "garbage": gzipped((b'{"data\n', 1), (b"x\n", 19 * MB)),
        "long lines": gzipped((b'{"data":1}\n', 1), (b"[1" + b"," * 20 * MB + b"]\n", 20)),
    },
    "JSON": {
        "deep": gzipped((b"[", 19 * MB)),
        "a long number": gzipped((b'{"data":', 1), (b"1", 19 * MB), (b"}", 1)),
        "NaNs": gzipped((b"[", 1), (b"NaN,", 4 * MB), (b"1]", 1)),
        "objects": gzipped((b"[", 1), (b"{},", 6 * MB), (b"{}]", 1)),
    },
    "envelopes": {
        "requests": gzipped((b'{"requests":[', 1), (b"{},", 6 * MB), (b"{}]}", 1)),
        "a long fetch time": gzipped((b'{"data":{},"fetched_at":[', 1), (b"[],", 6 * MB), (b"1]}", 1)),
        "a long error": gzipped((b'{"error":[', 1), (b"[],", 6 * MB), (b"1]}", 1)),
    },
    "responses": {
        "a large response": gzipped((b'{"data":{"as_of":[', 1), (b"{},", 650_000), (b"1]}}", 1)),
        "large responses": gzipped((b'{"data":{"as_of":[' + b"{}," * 650_000 + b"1]}}\n", 120)),
        "responses with many tags": gzipped((DATED + b'"classifications":[' + b"{}," * 22_000 + b"{}]}}\n", 400)),
        "many responses of one day": gzipped((DATED + b'"window_days":1}}\n', 3_000)),
        "a response with many fields": gzipped(
            (DATED + b"".join(b'"%d":1,' % n for n in range(140_000)) + b'"x":1}}', 1)
        ),
        "a response with many items": gzipped((DATED + b'"macro_categories":[' + b"1," * 140_000 + b"1]}}", 1)),
    },
    "files": {
        "padding after gzip": with_hole(gzip.compress(b"{}"), 10**10),
        "many gzip streams": containing(gzip.compress(b"") * 200_000),
        "a large file": with_hole(b"{", 10**12),
    },
    "tar": {
        "a large member in a tar": with_hole(tar_header("a.json", 1_900_000_000), 1_900_000_512),
        "a sparse member in a tar": containing(tar_header("a.json", 0, b"S")),
        "a long name in a tar": gzipped((tar_header("x", 300 * MB, b"L"), 1), (b"a", 300 * MB)),
        "many bad members in a tar": gzipped((tar_header("a.json", 0), MB)),
        "many other members in a tar": gzipped((tar_header("README", 0), MB)),
    },
    "zip": {
        "newlines in a zip": zipped("a.json", (b"\n" * MB for _ in range(300))),
        "newlines in a zip with another compression": zipped("a.json", [b"\n" * MB] * 100, zipfile.ZIP_LZMA),
        "many members in a zip": containing(zip_of([(str(n), b"") for n in range(60_000)])),
    },
}
"""By what they have in common. A process imports all of one group: most of a process's time is its own start."""


# A process that starts another one passes its own peak memory on to it; this one is small.
MEASURE = """
import os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024, used.ru_utime + used.ru_stime, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize("group", BOMBS)
def test_the_import_of_bombs_ends_soon_in_little_memory_and_names_each(tmp_path: Path, group: str) -> None:
    paths = {name: tmp_path / f"{name}.json.gz" for name in BOMBS[group]}
    for name, path in paths.items():
        BOMBS[group][name](path)
    command = [sys.executable, "-c", MEASURE, str(ORPIPELINE), "import", *map(str, paths.values())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    code, memory, seconds = done.stderr.splitlines()[-1].split()
    print(f"{group}: {int(memory) / MB:.0f} MB, {float(seconds):.1f} s")
    assert code == "1", done.stderr
    assert [name for name, path in paths.items() if f"rejected: {path.name}" not in done.stdout] == []
    assert int(memory) < MAX_MEMORY
    assert float(seconds) < MAX_SECONDS * len(paths)
    assert len(done.stdout) < 500_000 * len(paths)
    state = [file for file in dagster_home(load_settings()).rglob("*") if file.is_file()]
    assert 0 < sum(file.stat().st_size for file in state) < 2 * MB


def test_the_rest_of_a_file_with_a_hundred_rejections_is_not_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", sample_response(DAY) + b"\n" + b"7\n" * 5_000 + sample_response(DAY - timedelta(days=1))
    )
    after = write(tmp_path / "b.json", sample_response(DAY - timedelta(days=2)))
    progress: list[int] = []
    files = find_files([str(path), str(after)])
    imported = import_files(
        Archive(tmp_path / "raw"), files, first=DAY - timedelta(days=9), newest=DAY, on_progress=progress.append
    )
    assert sorted(imported.new) == [DAY - timedelta(days=2), DAY]
    assert len(imported.rejected) == 101
    assert (imported.rejected[-1].source, "not read" in imported.rejected[-1].reason) == ("a.jsonl", True)
    assert sum(progress) == sum(file.size for file in files)


def test_the_runs_log_names_the_first_hundred_rejections_and_counts_the_others() -> None:
    imported = Imported(rejected=[Rejected(f"{n}.json\n", "it is bad") for n in range(250)])
    lines = import_jobs._summary(imported, []).splitlines()
    assert len(lines) == 102
    assert lines[-1] == "and 150 more rejected"
    many = Imported(rejected=[Rejected("x" * MB, "y" * MB) for _ in range(10)])
    assert len(import_jobs._summary(many, [])) < 20_000


def test_jsonl_larger_than_the_largest_json_text_is_read_line_by_line(tmp_path: Path) -> None:
    line = envelope(*[sample_response(DAY)] * 30)
    path = tmp_path / "a.jsonl.gz"
    gzipped((b"<<<\r\n", 1), (line + b"\r\n", 50))(path)
    items = read(path)
    assert len(items) == 1_501
    assert isinstance(items[0], Rejected)
    assert {item.body for item in items if isinstance(item, FoundResponse)} == {sample_response(DAY)}
    assert items[-1].source == "a.jsonl.gz:51[30]"


def test_a_line_that_is_too_long_is_rejected_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    gzipped((sample_response(DAY) + b"\n", 1), (b" [" + b"1," * 25 * MB + b"1]\n\n", 1), (sample_response(DAY), 1))(
        path
    )
    first, *too_long, last = read(path)
    assert isinstance(first, FoundResponse)
    assert isinstance(last, FoundResponse)
    assert (first.source, last.source) == ("a.jsonl.gz:1", "a.jsonl.gz:4")
    assert {(item.source, isinstance(item, Rejected)) for item in too_long} == {("a.jsonl.gz:2", True)}


def test_an_abandoned_file_still_counts_as_processed(tmp_path: Path) -> None:
    (file,) = find_files([str(write(tmp_path / "a.jsonl", b"7\n" * 100))])
    progress: list[int] = []
    items = read_responses(file, progress.append)
    next(items)
    items.close()
    assert sum(progress) == file.size
