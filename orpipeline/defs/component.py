"""The pipeline as a component, for `dg` projects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from orpipeline.defs.build import build_defs
from orpipeline.defs.names import DEFAULT_PREFIX
from orpipeline.errors import SettingsError
from orpipeline.settings import Settings, load_settings, url_scheme


def _setting(name: str) -> Any:
    """Return an attribute that is a setting, with the setting's description."""
    return Field(None, description=Settings.model_fields[name].description)


class OpenRouterMarketShare(dg.Component, dg.Model, dg.Resolvable):
    """OpenRouter's market shares: archived, validated and ranked every day.

    The attributes are the options of `build_defs` and the settings. A setting that you leave out comes from the
    environment, as for the commands, `read` and `daily_partitions()`, so they agree. A relative path starts at the
    project's folder. The API key is not an attribute: it is read from the environment when the API is called.

        >>> import orpipeline
        >>> market = orpipeline.OpenRouterMarketShare.resolve_from_yaml("{group_name: market, alerts: true}")
        >>> market.group_name
        'market'
    """

    key_prefix: str = Field(DEFAULT_PREFIX, description="The prefix of all asset keys, and the DuckDB schema.")
    group_name: str | None = Field(None, description="The asset group of all assets; by default `openrouter`.")
    owners: Sequence[str] | None = Field(None, description="The owners of all assets.")
    tags: Mapping[str, str] | None = Field(None, description="Tags of all assets.")
    automation: bool = Field(True, description="Include the schedules and sensors.")
    alerts: bool = Field(False, description="Include `alert_sensor` in any case; it is on if `alert_webhook` is set.")
    report: bool = Field(True, description="Include the report and its sensor.")

    data_dir: str | None = _setting("data_dir")
    archive: str | None = _setting("archive")
    warehouse: str | None = _setting("warehouse")
    lake_data: str | None = _setting("lake_data")
    state: str | None = _setting("state")
    reports: str | None = _setting("reports")
    start_date: str | None = _setting("start_date")
    lock_wait_seconds: float | None = _setting("lock_wait_seconds")
    base_url: str | None = _setting("base_url")
    requests_per_minute: int | None = _setting("requests_per_minute")
    requests_per_day: int | None = _setting("requests_per_day")
    alert_webhook: str | None = _setting("alert_webhook")
    http_referer: str | None = _setting("http_referer")
    app_title: str | None = _setting("app_title")
    app_categories: str | None = _setting("app_categories")

    def settings(self, project_root: Path) -> Settings:
        """Return the environment's settings, with the attributes instead where they are given.

        Relative paths start at the project's folder. Raises SettingsError for an invalid value, and for an empty one: a
        template gives that if its variable is unset.
        """
        given = {name: getattr(self, name) for name in Settings.model_fields if name in self.model_fields_set}
        empty = [name for name, value in given.items() if value in (None, "")]
        if empty:
            raise SettingsError(f"{type(self).__name__}: {', '.join(empty)} is empty. Set its environment variable.")
        for name, value in given.items():
            is_place = Settings.model_fields[name].annotation in (Path, Path | str)
            if is_place and url_scheme(value) is None:
                given[name] = project_root / Path(value).expanduser()
        return load_settings(**given)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the pipeline's definitions."""
        options = {name: value for name, value in self if name not in Settings.model_fields}
        return build_defs(self.settings(context.project_root), **options)
