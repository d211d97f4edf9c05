"""Writing files that others read: completely or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO

_TEMPORARY = re.compile(r"\.orpipeline-[0-9]+-[0-9]+-.+", re.DOTALL)  # process id, number, name


def replace_file(path: Path, content: bytes) -> None:
    """Create or replace a file in one step, and create its folder if it is missing.

    Readers see the old content or the new, also after a crash. Raises OSError, and then leaves no temporary file.
    """
    replace_files({path: content}, aside=path.parent)


def replace_files(contents: Mapping[Path, bytes], *, aside: Path) -> None:
    """Create or replace several files that belong together.

    All of them are first written to hidden files in the folder `aside`, which must be on the same disk and is created
    if it is missing; then they are renamed one right after another, in the mapping's order. Raises OSError, and then
    leaves no temporary file.
    """
    temporary = {path: aside / f".orpipeline-{os.getpid()}-{n}-{path.name}" for n, path in enumerate(contents)}
    try:
        aside.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_bytes(content)
        for written in temporary.values():  # after all writes: the disk then has less to do for each file
            with written.open("rb") as file:
                os.fsync(file.fileno())
        for path, written in temporary.items():
            written.replace(path)
    except OSError:
        for written in temporary.values():
            written.unlink(missing_ok=True)
        raise


def is_temporary(path: Path) -> bool:
    """Return whether a file has the name of one of our temporary files."""
    return _TEMPORARY.fullmatch(path.name) is not None


def write_synced(file: IO[bytes], content: bytes) -> None:
    """Write to an open file, and return when the content is on the disk."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk: new files and renames."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
