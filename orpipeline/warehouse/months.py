"""The Parquet files of whole months, in a folder or in an object store: which are current, and replacing them.

A month's files belong together and have a version. In a folder, the version is in the metadata of the month's file of
`snapshots`, which is replaced last. In an object store, to read that would cost a request for each month. There, the
object `versions.json` has each month's version and the entity tags of its files, and is replaced after them. A version
counts only if a listing shows the same tags: after an upload that failed halfway, or of somebody else, it does not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from orpipeline.contracts.tables import EXPORTED
from orpipeline.files import is_temporary
from orpipeline.places import LocalFolder, Place, StoreFolder

_VERSIONS = "versions.json"


class Months(Protocol):
    """The months' files at `place`."""

    @property
    def place(self) -> Place:
        """Where the files are."""

    def version(self, month: str) -> str | None:
        """Return the version of a month's files, or None if they are missing or not complete."""

    def replace(self, month: str, contents: Mapping[str, bytes], version: str) -> None:
        """Replace a month's files, given by table, the mapping's last one after all others. They have the version."""

    def keep_only(self, months: Collection[str]) -> None:
        """Remove the files of all other months."""

    def sweep(self) -> None:
        """Remove the temporary files of killed writers. There must be no other writer."""


def open_months(to: Path | str) -> Months:
    """Return the months in a folder, or under the URL of an object store. Raises StoreError."""
    return _FolderMonths(to) if isinstance(to, Path) else _StoreMonths(to)


def month_file(name: str, month: str) -> str:
    """Return the name of a table's file of a month."""
    return f"{name}/{month}.parquet"


class _FolderMonths:
    def __init__(self, to: Path) -> None:
        self.place = LocalFolder(to)

    def version(self, month: str) -> str | None:
        paths = {name: self.place.address(month_file(name, month)) for name in EXPORTED}
        if not all(path.exists() for path in paths.values()):
            return None
        try:
            metadata = pq.read_schema(paths["snapshots"]).metadata or {}
        except (OSError, pa.ArrowInvalid):
            return None
        return str(metadata.get(b"version", b"").decode())

    def replace(self, month: str, contents: Mapping[str, bytes], version: str) -> None:  # noqa: ARG002 - it is in them
        # Temporary files are not beside the others: polars rejects a folder with different file extensions.
        self.place.replace({month_file(name, month): content for name, content in contents.items()})

    def keep_only(self, months: Collection[str]) -> None:
        for name in EXPORTED:
            for path in (self.place.path / name).glob("*.parquet"):
                if path.stem not in months:
                    path.unlink(missing_ok=True)

    def sweep(self) -> None:
        for left in filter(is_temporary, self.place.path.glob(".*")):
            left.unlink(missing_ok=True)


class _StoreMonths:
    def __init__(self, to: str) -> None:
        self.place = StoreFolder(to)

    @cached_property
    def _tags(self) -> Mapping[str, str | None]:
        return self.place.tags()

    @cached_property
    def _versions(self) -> dict[str, Any]:
        try:
            versions = json.loads(self.place.read(_VERSIONS) or b"{}")
        except ValueError:
            return {}
        return versions if isinstance(versions, dict) else {}

    def version(self, month: str) -> str | None:
        known = self._versions.get(month)
        tags = {name: self._tags.get(month_file(name, month)) for name in EXPORTED}
        if not isinstance(known, dict) or None in tags.values() or known.get("tags") != tags:
            return None
        return str(known.get("version"))

    def replace(self, month: str, contents: Mapping[str, bytes], version: str) -> None:
        tags = self.place.put({month_file(name, month): content for name, content in contents.items()})
        self._versions[month] = {"version": version, "tags": {name: tags[month_file(name, month)] for name in contents}}
        self._save()

    def keep_only(self, months: Collection[str]) -> None:
        others = [name for name in self._tags if name.endswith(".parquet") and Path(name).stem not in months]
        self.place.remove(others)
        gone = set(self._versions).difference(months)
        if gone:
            for month in gone:
                del self._versions[month]
            self._save()

    def sweep(self) -> None:
        """Do nothing: an object is there when all of it is, under its name."""

    def _save(self) -> None:
        self.place.replace({_VERSIONS: json.dumps(self._versions, indent=1, sort_keys=True).encode()})
