"""Which files to import: what paths, folders and patterns name."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePath

from orpipeline.archive.storage import SET_ASIDE
from orpipeline.errors import OrpipelineError
from orpipeline.importing.kinds import HEAD_BYTES, has_known_suffix, is_hidden, may_hold_answers
from orpipeline.text import encodable

_DIGITS = re.compile(r"([0-9]+)")


class NoSuchFileError(OrpipelineError):
    """A path or pattern names no file that may hold answers, or one that you may not read."""


@dataclass(frozen=True)
class AnswerFile:
    """A file that may hold answers."""

    path: Path
    name: str
    """How messages and records name it: its path, starting at the folder that was given."""
    fault: str = ""
    """For a folder that cannot be listed: why. Empty for a file."""

    @property
    def size(self) -> int:
        """The file's length in bytes; 0 if it is unknown."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def find_files(paths: Sequence[str]) -> list[AnswerFile]:
    """Return the files that `paths` name, each file once.

    A path is a file, a folder (with everything below it), or a pattern such as `2026-*.json.gz`. Below a folder, links
    are followed; hidden files are skipped, and so are damaged answers that an archive has set aside, and files that
    neither their names nor their first bytes identify as possible answers. A folder below it that cannot be listed is
    returned with its fault. Raises NoSuchFileError for a path that names no such file or that you may not read.
    """
    found: dict[Path, AnswerFile] = {}
    for path in paths:
        for file in _files_at(path):
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def _files_at(path: str) -> list[AnswerFile]:
    reason = "no such file, or none that may hold answers"
    files: list[AnswerFile] = []
    try:
        if not path:
            raise ValueError("the path is empty")  # pathlib takes it as the current folder
        files = [file for match in _matches(Path(path).expanduser()) for file in _files_in(match)]
    except FileNotFoundError:
        pass
    except OSError as error:
        reason = f"cannot read it: {error.strerror or error}"
    except (RuntimeError, ValueError) as error:  # `~user` of an unknown user; a name that no file can have
        reason = str(error).rstrip(".")
    if not files:
        raise NoSuchFileError(f"{encodable(path)}: {reason}. Nothing was imported. Check the path.")
    return files


def _matches(path: Path) -> list[Path]:
    """Return the path itself, or what it matches as a pattern. Raises OSError if nothing exists there."""
    try:
        path.stat()
    except OSError:
        # pathlib's own glob takes no absolute pattern in Python 3.11.
        matches = glob(str(path), recursive=True) if has_magic(str(path)) else []  # noqa: PTH207
        existing = [match for match in map(Path, matches) if match.exists()]
        if not existing:
            raise
        return sorted(existing, key=_by_numbers)
    return [path]


def _by_numbers(path: PurePath) -> list[tuple[int, str]]:
    """Return a sort key that puts `.r2` before `.r10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(str(path))]


def _files_in(path: Path) -> list[AnswerFile]:
    if not path.is_dir():
        return [AnswerFile(path, encodable(path.name))]
    folder_name = Path(path.resolve().name)
    faults = _walk(path)
    return [
        AnswerFile(found, encodable(str(folder_name / found.relative_to(path))), faults[found])
        for found in sorted(faults, key=_by_numbers)
    ]


def _walk(top: Path) -> dict[Path, str]:
    """Return the files below a folder that may hold answers, and the folders that cannot be listed with the reason."""
    unlisted: list[OSError] = []
    visited: set[tuple[int, int]] = set()
    faults: dict[Path, str] = {}
    for root, folders, files in os.walk(top, onerror=unlisted.append, followlinks=True):
        folder = Path(root)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:  # through a link
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name) and not SET_ASIDE.fullmatch(name))
        faults |= {folder / name: "" for name in files if not is_hidden(name) and _is_candidate(folder / name)}
    for error in unlisted:
        if Path(error.filename) == top:
            raise error
        faults[Path(error.filename)] = f"the folder cannot be listed: {error.strerror}"
    return faults


def _is_candidate(path: Path) -> bool:
    """Return whether a file may hold answers. A file that cannot be opened may: reading it reports the error."""
    try:
        mode = path.stat().st_mode
        if has_known_suffix(path.name):
            return True  # reading reports a pipe or a device
        if not stat.S_ISREG(mode):
            return False
        with path.open("rb") as file:
            return may_hold_answers(file.read(HEAD_BYTES))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ELOOP)  # a broken link
