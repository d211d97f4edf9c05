"""What a data engineer imports to build on orpipeline.

    from orpipeline import daily_partitions, table_key

    @dg.asset(partitions_def=daily_partitions, ins={"models": dg.AssetIn(table_key("task_models"))})
    def my_table(models: pl.DataFrame) -> pl.DataFrame: ...

`TABLES` are the tables' pandera models, `Warehouse` and `Archive` read what is kept, `DemoApi` is a stand-in of the API
for tests. Each is imported when it is first used: the package itself loads neither Dagster nor polars. The code
location is `orpipeline.definitions.defs` (`orpipeline.defs` is the package of its parts).
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orpipeline.archive.folder import Archive
    from orpipeline.contracts.tables import TABLES
    from orpipeline.defs.partitions import daily_partitions
    from orpipeline.defs.specs import table_key
    from orpipeline.errors import OrpipelineError
    from orpipeline.openrouter.client import Client
    from orpipeline.testing.api import DemoApi
    from orpipeline.warehouse.database import Warehouse
    from orpipeline.warehouse.io_manager import WarehouseIOManager

__all__ = [
    "TABLES",
    "Archive",
    "Client",
    "DemoApi",
    "OrpipelineError",
    "Warehouse",
    "WarehouseIOManager",
    "daily_partitions",
    "table_key",
]
__version__ = _version("orpipeline")

_HOMES = {
    "TABLES": "orpipeline.contracts.tables",
    "Archive": "orpipeline.archive.folder",
    "Client": "orpipeline.openrouter.client",
    "DemoApi": "orpipeline.testing.api",
    "OrpipelineError": "orpipeline.errors",
    "Warehouse": "orpipeline.warehouse.database",
    "WarehouseIOManager": "orpipeline.warehouse.io_manager",
    "daily_partitions": "orpipeline.defs.partitions",
    "table_key": "orpipeline.defs.specs",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
