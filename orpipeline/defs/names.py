"""The names of one pipeline in Dagster. All follow from its key prefix: two prefixes share no name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

import dagster as dg

from orpipeline.contracts.tables import TABLES
from orpipeline.errors import SettingsError
from orpipeline.warehouse.schema import DEFAULT_SCHEMA

DEFAULT_PREFIX: str = DEFAULT_SCHEMA
VIRTUAL_ASSETS = ("model_trends",)
"""The views that are assets."""
_RAW = "raw_task_classifications"
_REPORT = "leaderboard_report"
_CATALOGUE = ("raw_models", "models")
ASSETS = (_RAW, *TABLES, *VIRTUAL_ASSETS, *_CATALOGUE, _REPORT)
"""The names of all assets."""
_LISTS = ("task_classifications", "task_models")
_INPUTS = {
    "model_leaderboard": _LISTS,
    "author_leaderboard": _LISTS,
    "leaderboard_coverage": _LISTS,
    "model_trends": ("model_leaderboard",),
    "raw_models": (),
    "models": ("raw_models",),
}
_PREFIX = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED_ENDINGS = ("daily", "archive", "warehouse", "io_manager")  # with these, names of two pipelines could be equal
_RESERVED = ("information_schema", "pg_catalog")  # DuckDB's own schemas


def asset_key(name: str, key_prefix: str = DEFAULT_PREFIX) -> dg.AssetKey:
    """Return the key of one of the pipeline's assets, such as `task_models`.

        >>> import orpipeline
        >>> orpipeline.asset_key("task_models")
        AssetKey(['openrouter', 'task_models'])

    `key_prefix` is that of `build_defs`. Raises SettingsError if there is no such asset: Dagster would take the key for
    that of an asset of yours, and find nothing to load.
    """
    return Names(key_prefix).asset(name)


@dataclass(frozen=True)
class Names:
    """The names that follow from `prefix`, which is also the DuckDB schema. Raises SettingsError if it is not a name.

    Jobs, schedules and sensors have plain names under the default prefix; under any other, the prefix comes first.
    """

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        reserved = self.prefix in _RESERVED or self.prefix.endswith(_RESERVED_ENDINGS)
        if reserved or not _PREFIX.fullmatch(self.prefix):
            raise SettingsError(
                f"key_prefix={self.prefix!r} is not a valid name. Begin with a letter, use lower-case letters, digits "
                f"and underscores, and do not end with {', '.join(_RESERVED_ENDINGS)}."
            )

    def asset(self, name: str) -> dg.AssetKey:
        """Return an asset's key. Raises SettingsError if there is no such asset."""
        if name not in ASSETS:
            similar = get_close_matches(name, ASSETS, n=1)
            meant = f" Did you mean {similar[0]!r}?" if similar else ""
            raise SettingsError(f"There is no asset {name!r}.{meant} The assets are {', '.join(ASSETS)}.")
        return dg.AssetKey([self.prefix, name])

    @property
    def raw(self) -> dg.AssetKey:
        """The raw responses."""
        return self.asset(_RAW)

    @property
    def report(self) -> dg.AssetKey:
        """The report."""
        return self.asset(_REPORT)

    @property
    def daily_assets(self) -> list[dg.AssetKey]:
        """The assets that the daily step materializes: the raw response and the tables."""
        return [self.raw, *map(self.asset, TABLES)]

    @property
    def catalogue_assets(self) -> list[dg.AssetKey]:
        """The assets that the catalogue's step materializes: the raw catalogue and its table."""
        return list(map(self.asset, _CATALOGUE))

    def inputs(self, key: dg.AssetKey) -> list[dg.AssetKey]:
        """Return the daily assets that one of them, or a view, is computed from."""
        name = key.path[-1]
        if name in _INPUTS:
            return list(map(self.asset, _INPUTS[name]))
        return [] if name == _RAW else [self.raw]

    @property
    def api(self) -> str:
        """The resource key of the API."""
        return self.prefix

    @property
    def archive(self) -> str:
        """The resource key of the archive."""
        return f"{self.prefix}_archive"

    @property
    def warehouse(self) -> str:
        """The resource key of the warehouse."""
        return f"{self.prefix}_warehouse"

    @property
    def io_manager(self) -> str:
        """The resource key of the I/O manager."""
        return f"{self.prefix}_io_manager"

    def op(self, name: str) -> str:
        """Return the name of an op. Ops of all assets share one namespace, so it always has the prefix."""
        return f"{self.prefix}_{name}"

    def job(self, name: str) -> str:
        """Return the name of a job, schedule or sensor."""
        return name if self.prefix == DEFAULT_PREFIX else f"{self.prefix}_{name}"
