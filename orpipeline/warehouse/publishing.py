"""Publishing to an object store, from the copy of the warehouse on this machine and without the warehouse's lock."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from pathlib import Path

from orpipeline.warehouse.parquet import write_parquet
from orpipeline.warehouse.published import PublishedCopy, parquet_folder
from orpipeline.warehouse.stored_copy import StoredCopy, only_upload


def upload(copy: Path, published: str, *, schema: str | None, changed: Collection[date], wait_seconds: float) -> None:
    """Upload the DuckDB file `copy` to the URL `published`, and the tables in `schema`, if any, as Parquet files.

    Only what is not there yet is uploaded, and the months of `changed` days. Raises StoreError, OSError, or
    WarehouseError, which is also for another process that has been uploading for `wait_seconds`.
    """
    with only_upload(copy, wait_seconds):
        StoredCopy(published).upload(copy)
        if schema is not None:
            with PublishedCopy(copy, schema=schema).reading() as tables:
                write_parquet(tables, parquet_folder(published, schema), mirror=True, changed=changed)
