"""The files of an archive, in a folder or an object store, as they are."""

from __future__ import annotations

from collections.abc import Callable

from orpipeline.archive import Archive, Revision
from orpipeline.stores import Store


def store(archive: Archive) -> Store:
    return Store(archive.place, setting="a test")


def files(archive: Archive) -> dict[str, bytes]:
    """Return the content of each file by its name."""
    found = store(archive)
    return {name: found.read(name) or b"" for name in found.entries()}


def change(archive: Archive, revision: Revision, damage: Callable[[bytes], bytes | None]) -> None:
    """Replace a revision's file by what `damage` makes of it, or remove it."""
    content = damage(files(archive)[revision.name])
    if content is None:
        store(archive).remove(revision.name)
    else:
        store(archive).replace({revision.name: content})
