"""Writing files that others read: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in place of a file, or of none, in one step, and make its folder where there is none.

    Whoever reads the file has the old content or the new, also after a crash. Raises OSError, and leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden: what lists `*.parquet` or serves a folder does not show it.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
