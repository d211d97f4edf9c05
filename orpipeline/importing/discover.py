"""Which files to import: what paths, folders and patterns name."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from orpipeline.archive import DAMAGED
from orpipeline.errors import SettingsError
from orpipeline.importing.kinds import HEAD_BYTES, is_hidden, may_hold_responses
from orpipeline.text import encodable


@dataclass(frozen=True)
class ResponseFile:
    """A file that may hold responses."""

    path: Path
    name: str
    """How messages and the archive name it: its path, starting at the folder that was given."""

    @property
    def size(self) -> int:
        """The file's length in bytes; 0 if it is unknown."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def find_files(paths: Sequence[str]) -> list[ResponseFile]:
    """Return the files that `paths` name, each file once.

    A path is a file, a folder (with everything below it), or a pattern such as `2026-*.json.gz`. Below a folder, links
    are followed; hidden files are skipped, and so are responses that an archive has renamed because they are damaged,
    and files that neither their names nor their first bytes identify as possible responses. A folder below it that
    cannot be listed is returned as if it was a file: reading it gives the reason. Raises SettingsError for a path that
    names no such file or that you may not read.
    """
    found: dict[Path, ResponseFile] = {}
    for path in paths:
        for file in _files_at(path):
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def _files_at(path: str) -> list[ResponseFile]:
    reason = "no such file, or none that may hold responses"
    files: list[ResponseFile] = []
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
        raise SettingsError(f"{encodable(path)}: {reason}. Nothing was imported. Check the path.")
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
        return sorted(existing)
    return [path]


def _files_in(path: Path) -> list[ResponseFile]:
    if not path.is_dir():
        return [ResponseFile(path, encodable(path.name))]
    folder_name = Path(path.resolve().name)
    return [ResponseFile(one, encodable(str(folder_name / one.relative_to(path)))) for one in _walk(path)]


def _walk(top: Path) -> list[Path]:
    """Return the files below a folder that may hold responses, and the folders that cannot be listed."""
    found: list[Path] = []
    unlisted: list[OSError] = []
    visited: set[tuple[int, int]] = set()
    for root, folders, files in os.walk(top, onerror=unlisted.append, followlinks=True):
        folder = Path(root)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:  # through a link
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [folder / name for name in files if _is_candidate(folder / name)]
    for error in unlisted:
        if Path(error.filename) == top:
            raise error
        found.append(Path(error.filename))
    return sorted(found)


def _is_candidate(path: Path) -> bool:
    """Return whether a file may hold responses. One that cannot be opened may: reading it gives the reason."""
    if is_hidden(path.name) or f".gz{DAMAGED}" in path.name:
        return False
    try:
        mode = path.stat().st_mode
        if may_hold_responses(path.name):
            return True  # reading reports a pipe or a device
        if not stat.S_ISREG(mode):
            return False
        with path.open("rb") as file:
            return may_hold_responses(path.name, file.read(HEAD_BYTES))
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ELOOP)  # a broken link
