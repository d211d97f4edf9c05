"""Where files are that others read: a folder on this machine, or an object store. Each file is replaced in one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Protocol

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from orpipeline.files import replace_files
from orpipeline.stores import TIMEOUT_SECONDS, open_store, store_errors

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, GetResult, ObjectMeta

SETTING = "ORPIPELINE_REPORTS"
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    "": "text/plain; charset=utf-8",
}
"""With these, a browser shows a page and does not download it."""
_AT_ONCE = 8
"""How many small objects are sent at the same time."""
_PART_BYTES = 8_000_000
_PARTS_AT_ONCE = 4
_DOWNLOADS = 5  # an object that is replaced again and again is replaced in a loop
LARGE_FILE_SECONDS = 60.0
"""How long one part of a large file may take: 4 parts at once then need 4 Mbit/s."""


class Place(Protocol):
    """Files under names such as `leaderboard.html` or `snapshots/2026-10.parquet`."""

    def address(self, name: str) -> Path | str:
        """Return where a file is: its path, or its URL."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file. Raises StoreError."""

    def replace(self, contents: Mapping[str, bytes]) -> None:
        """Create or replace files that belong together, the mapping's last one after all others.

        Readers see each file's old content or its new one, also after a crash. Raises OSError or StoreError.
        """


def open_place(place: Path | str) -> Place:
    """Return the files in a folder, or under the URL of an object store. Raises StoreError."""
    return LocalFolder(place) if isinstance(place, Path) else StoreFolder(place)


class LocalFolder:
    """The files in the folder `path`, which the first write creates."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def address(self, name: str) -> Path:
        """Return a file's path."""
        return self.path / name

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if it cannot be read: replacing the file then shows why."""
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return None

    def replace(self, contents: Mapping[str, bytes]) -> None:
        """Replace files one right after another, in the mapping's order, as `replace_files` does."""
        replace_files({self.path / name: content for name, content in contents.items()}, aside=self.path)


class StoreFolder:
    """The objects under the URL of an object store. A request may take `timeout_seconds`.

    All methods raise StoreError.
    """

    def __init__(self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.url = url
        self._store = open_store(url, setting=SETTING, timeout_seconds=timeout_seconds)

    def address(self, name: str) -> str:
        """Return an object's URL."""
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return an object's content, or None if there is none."""
        import obstore

        try:
            with self._errors("read", name):
                return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None

    def replace(self, contents: Mapping[str, bytes]) -> None:
        """Replace objects, the mapping's last one after all others."""
        self.put(contents)

    def put(self, contents: Mapping[str, bytes]) -> dict[str, str | None]:
        """Replace objects as `replace` does, and return each one's entity tag."""
        if not contents:
            return {}
        *first, last = contents
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            tags = dict(zip(first, threads.map(lambda name: self._put(name, contents[name]), first), strict=True))
        return {**tags, last: self._put(last, contents[last])}

    def put_file(self, name: str, file: IO[bytes], *, source: str) -> None:
        """Replace an object by a file's content. `source` tells from what it was made, and is kept with the object."""
        self._put(name, file, source=source)

    def source(self, name: str) -> str | None:
        """Return from what an object was made, or None if there is no such object."""
        head = self._head(name)
        return head.attributes.get("source") if head else None

    def tag(self, name: str) -> str | None:
        """Return an object's entity tag, which changes with its content, or None if there is no such object."""
        head = self._head(name)
        return _tag(head.meta) if head else None

    def tags(self) -> dict[str, str | None]:
        """Return the entity tags of all objects. One request lists up to 1000 objects."""
        import obstore

        with self._errors("list"):
            return {found["path"]: found["e_tag"] for some in obstore.list(self._store) for found in some}

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects."""
        import obstore

        if names:
            with self._errors("write"):
                obstore.delete(self._store, names)

    def download(self, name: str, file: IO[bytes]) -> str | None:
        """Write an object's content to an empty file, and return its entity tag; None if there is no such object."""
        from obstore.exceptions import PreconditionError

        attempts = Retrying(
            retry=retry_if_exception_type(PreconditionError), stop=stop_after_attempt(_DOWNLOADS), reraise=True
        )
        try:
            with self._errors("read", name):
                return attempts(self._download_once, name, file)
        except FileNotFoundError:
            return None

    def _download_once(self, name: str, file: IO[bytes]) -> str:
        """Download in parts: the time limit is then one for each part and not for the whole.

        Raises PreconditionError if the object is replaced in the meantime.
        """
        import obstore

        file.truncate(file.seek(0))
        first = obstore.get(self._store, name, options={"range": (0, _PART_BYTES)})
        file.write(first.bytes())
        for start in range(_PART_BYTES, first.meta["size"], _PART_BYTES):
            options: GetOptions = {"range": (start, start + _PART_BYTES), "if_match": first.meta["e_tag"]}
            file.write(obstore.get(self._store, name, options=options).bytes())
        return _tag(first.meta)

    def _put(self, name: str, content: bytes | IO[bytes], **about: str) -> str | None:
        import obstore

        attributes: Attributes = {
            "Content-Type": _CONTENT_TYPES.get(PurePosixPath(name).suffix, "application/octet-stream"),
            # Objects are replaced, and some stores let others keep a public one for an hour.
            "Cache-Control": "no-cache",
            **about,
        }
        with self._errors("write", name):
            return obstore.put(
                self._store,
                name,
                content,
                attributes=attributes,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )["e_tag"]

    def _head(self, name: str) -> GetResult | None:
        import obstore

        try:
            with self._errors("read", name):
                return obstore.get(self._store, name, options={"head": True})
        except FileNotFoundError:
            self.tags()  # such an answer has no text; this one's shows whether it is the bucket that is missing
            return None

    @contextmanager
    def _errors(self, verb: str, name: str = "") -> Iterator[None]:
        with store_errors(verb, self.address(name) if name else self.url, setting=SETTING):
            yield


def _tag(found: ObjectMeta) -> str:
    return found["e_tag"] or f"{found['last_modified']} {found['size']}"
