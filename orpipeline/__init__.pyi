from .build import build_defs as build_defs
from .component import OpenRouterMarketShare as OpenRouterMarketShare
from .contracts.tables import AuthorLeaderboard as AuthorLeaderboard
from .contracts.tables import LatestLeaderboard as LatestLeaderboard
from .contracts.tables import LeaderboardCoverage as LeaderboardCoverage
from .contracts.tables import MacroCategories as MacroCategories
from .contracts.tables import ModelLeaderboard as ModelLeaderboard
from .contracts.tables import ModelTrends as ModelTrends
from .contracts.tables import Snapshots as Snapshots
from .contracts.tables import TaskClassifications as TaskClassifications
from .contracts.tables import TaskModels as TaskModels
from .defs.external import external_specs as external_specs
from .defs.external import resources as resources
from .defs.names import asset_key as asset_key
from .defs.partitions import daily_partitions as daily_partitions
from .defs.resources import ArchiveResource as ArchiveResource
from .defs.resources import OpenRouterResource as OpenRouterResource
from .defs.resources import WarehouseResource as WarehouseResource
from .errors import OrpipelineError as OrpipelineError
from .errors import SettingsError as SettingsError
from .leaderboard import rank as rank
from .openrouter.errors import OpenRouterError as OpenRouterError
from .settings import Settings as Settings
from .warehouse.errors import WarehouseBusyError as WarehouseBusyError
from .warehouse.errors import WarehouseError as WarehouseError
from .warehouse.io_manager import WarehouseIOManager as WarehouseIOManager

__version__: str
