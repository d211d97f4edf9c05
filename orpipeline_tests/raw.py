"""The files of an archive, in a folder or an object store, as they are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.store import ObjectStore

from orpipeline.stores import open_store

Place = Path | str


def read(place: Place) -> bytes:
    if isinstance(place, Path):
        return place.read_bytes()
    return bytes(obstore.get(*_object(place)).bytes())


def write(place: Place, content: bytes) -> None:
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    else:
        obstore.put(*_object(place), content)


def remove(place: Place) -> None:
    if isinstance(place, Path):
        place.unlink()
    else:
        obstore.delete(*_object(place))


def beside(place: Place, name: str) -> Place:
    """Return another file in the same folder."""
    return place.with_name(name) if isinstance(place, Path) else f"{place.rpartition('/')[0]}/{name}"


def record_file(place: Place) -> Place:
    return beside(place, "record.json")


def below(place: Place, *names: str) -> Place:
    return place.joinpath(*names) if isinstance(place, Path) else "/".join([place, *names])


def files(root: Place) -> dict[str, bytes]:
    """Return the content of each file below a place, by its path from there."""
    if isinstance(root, Path):
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    store, prefix = _object(root)
    keys = [one["path"] for one in obstore.list(store, prefix or None).collect()]
    return {key.removeprefix(f"{prefix}/"): bytes(obstore.get(store, key).bytes()) for key in keys}


def _object(url: str) -> tuple[ObjectStore, str]:
    parts = urlsplit(url)
    store = open_store(f"{parts.scheme}://{parts.netloc}", setting="a test")
    return store, parts.path.strip("/")
