"""Files that unpack or expand to far more than they seem to hold: an import ends, in bounded memory and time."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from orpipeline.archive import Archive
from orpipeline.defs import imports as import_jobs
from orpipeline.importing import responses
from orpipeline.importing.files import find_files
from orpipeline.importing.importer import Imported, import_files
from orpipeline.importing.responses import FoundResponse, Rejected
from orpipeline.testing import sample_response
from orpipeline_tests.commands import ORPIPELINE
from orpipeline_tests.imports import read, tar_of, write, zip_of
from orpipeline_tests.responses import DAY

MB = 1_000_000
MAX_MEMORY, MAX_SECONDS = 550 * MB, 60  # of processor time. The command needs 240 MB for a tiny file.
BODIES = [sample_response(DAY - timedelta(days=n)) for n in range(3)]


def gzipped(path: Path, *pieces: tuple[bytes, int]) -> Path:
    """Write pieces, each so many times, to a gzip file, in little memory."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for piece, times in pieces:
            at_once = max(1, MB // len(piece))
            for start in range(0, times, at_once):
                file.write(piece * min(at_once, times - start))
    return path


def bombs(folder: Path) -> Iterable[Path]:
    yield gzipped(folder / "deep.json.gz", (b"[", 19 * MB))
    yield gzipped(folder / "objects.json.gz", (b"[", 1), (b"{},", 6 * MB), (b"{}]", 1))
    yield gzipped(folder / "garbage.json.gz", (b'{"data\n', 1), (b"x\n", 19 * MB))
    yield gzipped(folder / "lines.json.gz", (b'{"data":1}\n7\n', 500_000))
    yield gzipped(folder / "large.json.gz", (b'{"as_of":1,"classifications":[' + b"{}," * 650_000 + b"1]}\n", 120))
    many = folder / "members.zip"
    many.write_bytes(zip_of([(f"{n}", b"") for n in range(60_000)]))
    yield many
    with zipfile.ZipFile(folder / "newlines.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.json", b"\n" * 300 * MB)
    yield folder / "newlines.zip"
    hole = folder / "padding.json.gz"
    hole.write_bytes(gzip.compress(b"{}"))
    os.truncate(hole, 10**10)
    yield hole


# A process that starts another one passes its own peak memory on to it; this one is small.
MEASURE = """
import os, sys
pid = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024, used.ru_utime + used.ru_stime, file=sys.stderr)
"""


@pytest.mark.slow
def test_the_import_of_bombs_ends_in_bounded_memory_and_names_each(tmp_path: Path) -> None:
    paths = list(bombs(tmp_path))
    command = [sys.executable, "-c", MEASURE, str(ORPIPELINE), "import", *map(str, paths)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    code, memory, seconds = done.stderr.splitlines()[-1].split()
    print(f"{int(memory) / MB:.0f} MB, {float(seconds):.1f} s")
    assert code == "1", done.stderr
    assert [path.name for path in paths if f"rejected: {path.name}" not in done.stdout] == []
    assert int(memory) < MAX_MEMORY
    assert float(seconds) < MAX_SECONDS
    assert len(done.stdout) < 500_000


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_FILES"])
@pytest.mark.parametrize("kind", ["folder", "gzip", "zip", "tar"])
def test_one_line_ends_the_import_when_its_files_are_too_many_or_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, limit: str
) -> None:
    monkeypatch.setattr(responses, limit, 4 if limit == "MAX_FILES" else 1.5 * MB)
    large = [(f"{n}.json", BODIES[n % 3] + b" " * 300_000) for n in range(9)]
    first = write(tmp_path / "in" / "a.json", BODIES[0])
    if kind == "folder":
        for name, content in large:
            write(first.with_name(name), content)
    elif kind == "gzip":
        for name, content in large:
            write(first.with_name(f"{name}.gz"), gzip.compress(content))
    else:
        write(first.with_name("b"), zip_of(large) if kind == "zip" else tar_of(large))
    imported = import_files(
        Archive(tmp_path / "raw"), find_files([str(first.parent)]), first=DAY - timedelta(days=9), newest=DAY
    )
    assert DAY in imported.days
    (reason,) = [one.reason for one in imported.rejected]
    assert "the rest is not read" in reason


def test_the_rest_of_a_file_with_a_hundred_rejections_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", BODIES[0] + b"\n" + b"{}\n" * 5_000 + BODIES[1])
    files = find_files([str(path), str(write(tmp_path / "b.json", BODIES[2]))])
    progress: list[int] = []
    raw = Archive(tmp_path / "raw")
    imported = import_files(raw, files, first=DAY - timedelta(days=9), newest=DAY, on_progress=progress.append)
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


def test_jsonl_larger_than_the_largest_value_is_read_and_a_line_that_is_too_long_is_rejected(tmp_path: Path) -> None:
    line = BODIES[0] + b"\r\n"
    path = gzipped(tmp_path / "a.jsonl.gz", (line, 800), (b"[" + b" " * 50 * MB + b"1]\n\n", 1), (line, 1))
    items = read(path)
    assert {item.body for item in items if isinstance(item, FoundResponse)} == {BODIES[0]}
    assert [items[n].source for n in (0, 799, -1)] == ["a.jsonl.gz:1", "a.jsonl.gz:800", "a.jsonl.gz:803"]
    assert {item.source for item in items[800:-1] if isinstance(item, Rejected)} == {"a.jsonl.gz:801"}
