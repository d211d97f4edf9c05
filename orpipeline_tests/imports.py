"""Responses in files as other people archive them, and imports into a test's own pipeline."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import dagster as dg

from orpipeline.defs.imports import import_job
from orpipeline.defs.partitions import daily_partitions
from orpipeline.defs.resources import resources
from orpipeline.importing.files import find_files, read_responses
from orpipeline.importing.importer import Imported
from orpipeline.importing.responses import FoundResponse, Rejected
from orpipeline.testing import sample_response
from orpipeline_tests.responses import DAY, Bend, macro, tag
from orpipeline_tests.world import NAMES, QUIET, World

WEEK = [DAY - timedelta(days=n) for n in range(6, -1, -1)]
_REPORTED = [*NAMES.daily_assets, NAMES.asset("model_trends")]
Members = Sequence[tuple[str, bytes]]


def served(day: date, hours: float = 0.5) -> datetime:
    """Return a time on the day on which the API serves `day`."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, hours=hours)


def restated(change: float) -> Bend:
    """Return a bend that moves a share of requests between two tags of one macro-category and breaks no rule."""

    def bend(data: dict[str, Any]) -> None:
        general = macro(data, "general")["usage_share"]
        for name, moved in (("translation", change), ("content_writing", -change)):
            task = tag(data, name)
            task["usage_share"] = round(task["usage_share"] + moved, 3)
            task["category_usage_share"] = round(task["usage_share"] / general, 3)

    return bend


def respelt(body: bytes) -> bytes:
    """Return the same JSON in other bytes."""
    return json.dumps(json.loads(body), indent=1, sort_keys=True).encode()


def envelope(*bodies: bytes, fetched_at: datetime | None = None, each: Sequence[datetime] = ()) -> bytes:
    """Return an envelope with responses, byte for byte; `each` has each response's fetch time."""
    start = b'{"path": "/classifications/task", "params": {"window": "7d"}, "status": 200, '
    requests = []
    for number, body in enumerate(bodies):
        own = b'"fetched_at": "%s", ' % each[number].isoformat().encode() if each else b""
        requests.append(start + own + b'"response": ' + body + b"}")
    time = b'"fetched_at": "%s", ' % fetched_at.isoformat().encode() if fetched_at else b""
    return b'{"source": "tasks", "license": "CC BY 4.0", ' + time + b'"requests": [' + b", ".join(requests) + b"]}"


def zip_of(members: Members, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of files."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()


def tar_of(members: Members, mtime: float = 0, gzipped: bool = True) -> bytes:
    """Return a tar of files."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz" if gzipped else "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), mtime
            archive.addfile(member, BytesIO(content))
    return packed.getvalue()


def write(path: Path, content: bytes, modified_at: datetime | None = None) -> Path:
    """Write a file and its folders, and set when it was last written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if modified_at is not None:
        os.utime(path, (modified_at.timestamp(),) * 2)
    return path


def read(*paths: Path | str) -> list[FoundResponse | Rejected]:
    """Return everything found in files."""
    return [item for file in find_files([str(path) for path in paths]) for item in read_responses(file)]


def found(*paths: Path | str) -> list[FoundResponse]:
    """Return the responses in files. Fail if anything is rejected."""
    items = read(*paths)
    assert not [item for item in items if isinstance(item, Rejected)]
    return [item for item in items if isinstance(item, FoundResponse)]


def rejected(*paths: Path | str) -> list[Rejected]:
    """Return what is rejected in files."""
    return [item for item in read(*paths) if isinstance(item, Rejected)]


@dataclass(frozen=True)
class ImportRun:
    """A run of the job, and the outcomes that it passed to `on_imported`."""

    result: dg.ExecuteInProcessResult
    outcomes: Sequence[Imported]

    @property
    def imported(self) -> Imported:
        """The only outcome."""
        (imported,) = self.outcomes
        return imported

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """How many responses were new, the same, restated and rejected."""
        return counts(self.imported)


def counts(imported: Imported) -> tuple[int, int, int, int]:
    """Return how many responses were new, the same, restated and rejected."""
    return len(imported.new), len(imported.same), len(imported.restated), len(imported.rejected)


def run_job(world: World, *paths: Path | str, dry_run: bool = False) -> ImportRun:
    """Run the job `import_archive` on the world's instance."""
    outcomes: list[Imported] = []
    job = import_job(NAMES, daily_partitions(world.settings), on_imported=outcomes.append)
    defs = dg.Definitions(jobs=[job], resources=resources(world.settings, NAMES))
    config = {"paths": [str(path) for path in paths], "dry_run": dry_run}
    result = defs.resolve_job_def("import_archive").execute_in_process(
        instance=world.instance,
        run_config={"ops": {"openrouter_import": {"config": config}}, **QUIET},
        raise_on_error=False,
    )
    return ImportRun(result, outcomes)


def materialized(instance: dg.DagsterInstance) -> dict[str, set[str]]:
    """Return the materialized partitions of each asset in the instance, by name."""
    known = {*_REPORTED, *instance.all_asset_keys()}
    return {key.path[-1]: set(instance.get_materialized_partitions(key)) for key in known}


def in_every_asset(days: Iterable[date]) -> dict[str, set[str]]:
    """Return the result of `materialized` if exactly these days are materialized in every daily asset and the view."""
    return {key.path[-1]: {day.isoformat() for day in days} for key in _REPORTED}


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file's bytes and when it was last written."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def week_in(folder: Path, days: Iterable[date] = WEEK) -> Path:
    """Write days as envelopes, one file a day, as the public archive does."""
    for day in days:
        write(folder / f"{day}.json", envelope(sample_response(day), fetched_at=served(day)))
    return folder
