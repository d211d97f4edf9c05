from .archive.folder import Archive as Archive
from .build import build_defs as build_defs
from .component import OpenRouterMarketShare as OpenRouterMarketShare
from .contracts.tables import TABLES as TABLES
from .defs.names import asset_key as asset_key
from .defs.partitions import daily_partitions as daily_partitions
from .errors import OrpipelineError as OrpipelineError
from .openrouter.client import Client as Client
from .settings import Settings as Settings
from .testing.api import DemoApi as DemoApi
from .warehouse.database import Warehouse as Warehouse
from .warehouse.io_manager import WarehouseIOManager as WarehouseIOManager

__version__: str
