"""The spool: a folder on this machine where a fetched answer waits until the archive can take it.

A spool is an `Archive` in a folder. Its answers keep their fetch time, source and origin, and leave it only after the
archive has them.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from orpipeline.archive.archive import Archive
from orpipeline.archive.records import ArchiveError, CorruptAnswerError, Record, Stored
from orpipeline.files import replace_file

_log = logging.getLogger(__name__)

_DELIVERED = ".delivered-"
_USED = ".used"  # a file with a line for each place


def waiting(spool: Archive) -> list[Record]:
    """Return the records of the answers that wait for the archive, oldest day first."""
    return spool.records()


def deliver(spool: Archive, archive: Archive) -> dict[Record, Stored | ArchiveError]:
    """Archive all that waits, in its order, and remove it from the spool. Return the outcome for each waiting record.

    An answer that is damaged, or that the archive does not take, stays, and a warning names it: it does not keep the
    others waiting. Raises StoreError if the whole archive fails; what is not archived by then waits on.
    """
    spool.adopt()
    delivered: dict[Record, Stored | ArchiveError] = {}
    for record in waiting(spool):
        try:
            body = spool.read(record)
        except CorruptAnswerError as error:
            if Path(record.folder).exists():  # not if another process has just delivered it
                _log.warning("An answer that waits for the archive is damaged, and stays there. %s", error)
            continue
        try:
            delivered[record] = archive.put_again(body, record)
        except ArchiveError as error:
            _log.warning("%s The answer still waits in %s.", error, record.path)
            delivered[record] = error
            continue
        _remove(spool, record)
    return delivered


def was_used(spool: Archive, place: Path | str) -> bool:
    """Return whether a place (the archive's or the warehouse's) could be used from this data folder before."""
    return str(place) in _used(spool)


def mark_used(spool: Archive, place: Path | str) -> None:
    """Remember that a place can be used from this data folder. If it fails later, its settings were right."""
    if not was_used(spool, place):
        with suppress(OSError):  # then an outage is taken for a wrong setting
            Path(spool.root).mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(Path(spool.root) / _USED, "".join(f"{used}\n" for used in (*_used(spool), place)).encode())


def _used(spool: Archive) -> list[str]:
    try:
        return (Path(spool.root) / _USED).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _remove(spool: Archive, record: Record) -> None:
    """Remove a delivered answer: in one step, so a killed process leaves no half of it."""
    folder, root = Path(record.folder), Path(spool.root)
    aside = root / f"{_DELIVERED}{uuid4().hex}"
    with suppress(OSError):  # if it stays, the archive recognizes it the next time
        folder.rename(aside)
        folder.parent.rmdir()
    for delivered in root.glob(f"{_DELIVERED}*"):
        shutil.rmtree(delivered, ignore_errors=True)
