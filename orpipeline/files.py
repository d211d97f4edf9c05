"""Writing files that others read: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in place of a file, or of none, in one step, and make its folder where there is none.

    Whoever reads the file has the old content or the new, also after a crash. Raises OSError, and leaves nothing.
    """
    replace_files({path: content}, aside=path.parent)


def replace_files(contents: Mapping[Path, bytes], *, aside: Path) -> None:
    """Do so with several files that belong together: all are on the disk before the first is put in place.

    They are put in place one right after another, in their order. Until then they are hidden files in the folder
    `aside`, which must be on the same disk, and is made where there is none. Raises OSError, and leaves none of those.
    """
    temporary = {path: aside / f".{n}-{path.name}.{os.getpid()}" for n, path in enumerate(contents)}
    try:
        aside.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary[path].open("wb") as file:
                write_synced(file, content)
        for path, written in temporary.items():
            written.replace(path)
    except OSError:
        for written in temporary.values():
            written.unlink(missing_ok=True)
        raise


def write_synced(file: IO[bytes], content: bytes) -> None:
    """Write to an open file, and return once it is on the disk."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
