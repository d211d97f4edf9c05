"""For a second code location: the pipeline's assets as specs, and the resources that read and store their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from orpipeline.defs import resources as parts
from orpipeline.defs.names import DEFAULT_PREFIX, Names
from orpipeline.defs.partitions import daily_partitions
from orpipeline.defs.specs import Labels, catalogue_specs, daily_specs, report_spec, view_specs
from orpipeline.settings import Settings, used_settings


def external_specs(
    settings: Settings | None = None,
    *,
    key_prefix: str = DEFAULT_PREFIX,
    group_name: str | None = None,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[dg.AssetSpec]:
    """Return the assets of `build_defs` as specs, for another code location than the one that materializes them.

    There, your assets depend on ours and load their tables through the I/O manager, which is one of `resources()`:

        >>> import dagster as dg
        >>> import orpipeline
        >>> @dg.asset(deps=[orpipeline.asset_key("task_models")])
        ... def authors() -> None: ...
        >>> defs = dg.Definitions(
        ...     assets=[authors, *orpipeline.external_specs()], resources=orpipeline.resources()
        ... )

    Dagster shows each asset once, and materializes it in the code location that has `build_defs`. The specs have the
    keys, descriptions, columns, partitions and kinds of the assets. Give both functions the same arguments: Dagster may
    show a view, which no step materializes, as either code location describes it.

    Args:
        settings: By default from the environment, which this function reads once. Only the start date is used.
        key_prefix: The prefix of all asset keys, as in `build_defs`.
        group_name: The asset group of all assets; by default `openrouter`.
        owners: The owners of all assets: email addresses or `team:name`.
        tags: Tags of all assets.

    Raises SettingsError if the environment has invalid settings, or if `key_prefix` is not a valid name.
    """
    names, labels = Names(key_prefix), Labels(group_name, owners or (), tags or {})
    partitions = daily_partitions(settings)
    return [
        *daily_specs(names, partitions, labels, has_key=True),
        *catalogue_specs(names, partitions, labels),
        *view_specs(names, partitions, labels),
        report_spec(names, labels),
    ]


def resources(settings: Settings | None = None, *, key_prefix: str = DEFAULT_PREFIX) -> dict[str, object]:
    """Return the pipeline's resources by key, for a code location without `build_defs`.

        >>> import orpipeline
        >>> list(orpipeline.resources())
        ['openrouter', 'openrouter_archive', 'openrouter_warehouse', 'openrouter_io_manager']

    They are the API, the archive, the warehouse and its I/O manager. Any other prefix takes the place of `openrouter`.

    Args:
        settings: Where the data is. By default from the environment, which this function reads once.
        key_prefix: The prefix of the keys, and the DuckDB schema of the pipeline's tables, as in `build_defs`.

    Raises SettingsError if the environment has invalid settings, or if `key_prefix` is not a valid name.
    """
    return parts.resources(used_settings(settings), Names(key_prefix))
