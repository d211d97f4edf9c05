"""The published copy in an object store: uploading it, and downloading the newest one.

An upload takes as long as the network does. While a writer has the lock of the warehouse, it therefore makes a copy on
this machine, as for a folder. It uploads that copy after it has released the lock: other writers do not wait for it.
Uploads have their own lock, and each one sends the newest copy of that moment, so the newest commit is published last.
If an upload fails, or its process ends first, the store has an older copy until the next write.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

from filelock import FileLock, Timeout

from orpipeline.places import LARGE_FILE_SECONDS, StoreFolder
from orpipeline.warehouse.errors import WarehouseError

_ABANDONED_AFTER = timedelta(hours=1)


class StoredCopy:
    """The published copy at the URL `published`. Methods raise StoreError, and OSError for this machine's files."""

    def __init__(self, published: str) -> None:
        self._published = published
        folder, _, self._name = published.rpartition("/")
        self._place = StoreFolder(folder, timeout_seconds=LARGE_FILE_SECONDS)

    def upload(self, copy: Path) -> None:
        """Upload a copy of the warehouse's file, unless it is there already."""
        with copy.open("rb") as file:
            state = _state(os.fstat(file.fileno()))
            if self._place.source(self._name) != state:
                self._place.put_file(self._name, file, source=state)

    def is_copy_of(self, source: Path) -> bool:
        """Return whether the object is a copy of the warehouse's file as it is now."""
        return source.exists() and self._place.source(self._name) == _state(source.stat())

    def download(self, cache: Path) -> Path | None:
        """Return the path of the newest copy in the folder `cache`, or None if there is no object.

        It is downloaded only if the object is another one than before, and then older copies are removed. Programs
        that have one open keep it.
        """
        copies = cache / "published" / _digest(self._published)
        tag = self._place.tag(self._name)
        if tag is None:
            return None
        known = _file(copies, tag)
        return known if known.exists() else self._downloaded(copies)

    def _downloaded(self, copies: Path) -> Path | None:
        copies.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = copies / f".downloading-{os.getpid()}-{token_hex(4)}"
        try:
            with new.open("wb") as file:
                tag = self._place.download(self._name, file)
            if tag is None:
                return None
            path = _file(copies, tag)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
        _remove_others(path)
        return path


@contextmanager
def only_upload(copy: Path, wait_seconds: float) -> Iterator[None]:
    """Let other uploads of `copy` wait until the end. Raises WarehouseError if one takes longer than `wait_seconds`."""
    try:
        with FileLock(copy.with_name(f".{copy.name}.uploading"), timeout=wait_seconds):
            yield
    except Timeout:
        raise WarehouseError(f"another process has been uploading it for {wait_seconds:g} s") from None


def _remove_others(path: Path) -> None:
    """Remove the other copies, and downloads that killed processes left; running ones are newer."""
    with suppress(OSError):  # another process may do the same
        oldest = path.stat().st_mtime - _ABANDONED_AFTER.total_seconds()
        for other in path.parent.iterdir():
            is_copy = not other.name.startswith(".")
            if other != path and (is_copy or other.stat().st_mtime < oldest):
                other.unlink(missing_ok=True)


def _file(copies: Path, tag: str) -> Path:
    return copies / f"{_digest(tag)}.duckdb"


def _state(status: os.stat_result) -> str:
    """Return what distinguishes the states of the warehouse's file. A copy of the file has the same."""
    return f"{status.st_mtime_ns}-{status.st_size}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
