"""DuckDB's extensions, from the wheels that are installed with the extra `lake`. Nothing is downloaded."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import duckdb

from orpipeline.warehouse.errors import WarehouseSetupError
from orpipeline.warehouse.layout import literal

UNSIGNED = {"allow_unsigned_extensions": "true"}
"""Lets a connection load extensions without checking their signatures, for which DuckDB reads 80 MB: 0.6 s each time.
They come from wheels as DuckDB itself does, and whoever could replace them there could replace DuckDB, too."""
LAKE_DUCKDB = "1.5.5"
"""The DuckDB that the extra `lake` brings. A test compares it with `pyproject.toml`."""


def load_extension(connection: duckdb.DuckDBPyConnection, name: str, *, needed_for: str) -> None:
    """Load an extension from its wheel. Raises WarehouseSetupError if it is not installed for this DuckDB."""
    path = extension_path(name)
    if path is None:
        raise WarehouseSetupError(missing_extension(name, needed_for))
    # `INSTALL` would copy the file into the home folder first.
    connection.execute(f"LOAD {literal(str(path))}")


def extension_path(name: str) -> Path | None:
    """Return where an extension for the installed DuckDB is, or None."""
    try:
        folder = Path(str(files(f"duckdb_extension_{name}")))
    except ModuleNotFoundError:
        return None
    path = folder / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    return path if path.is_file() else None


def missing_extension(name: str, needed_for: str) -> str:
    """Return the message for a missing extension."""
    return (
        f"{needed_for} needs DuckDB's extension {name}, which is not installed for DuckDB {duckdb.__version__}; "
        f"nothing was changed. Install `orpipeline[lake]` in an environment of its own: it brings DuckDB {LAKE_DUCKDB}."
    )
