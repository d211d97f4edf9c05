"""The settings: a value. The environment is one way to make one, and only this module reads it, except DAGSTER_HOME."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from platformdirs import user_data_path
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from orpipeline import network
from orpipeline.errors import SettingsError

REQUESTS_PER_MINUTE = 30
REQUESTS_PER_DAY = 500
"""The API's own limits: per minute and key, and per day and account. A setting may lower them, not raise them."""
LOCK_WAIT_SECONDS = 60.0
"""How long to wait for another process that has locked the warehouse."""
DEFAULT_BASE_URL = "https://openrouter.ai/api/v1"
DEFAULT_START_DATE = date(2026, 6, 17)
"""Before any public snapshot of the endpoint."""
API_KEY = "OPENROUTER_API_KEY"
PREFIX = "ORPIPELINE_"
OBJECT_STORES = ("s3", "gs", "az")
"""The schemes of the object stores that a setting can name."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # a single letter is a drive
_STORE_URL = re.compile(r"[a-z0-9]+://[^/@?#]+(/[^/?#]+)*/?")
_PASSWORD = re.compile(r"password\s*=|//[^/@]*:[^/@]*@", re.IGNORECASE)


def project_dir() -> Path | None:
    """Return the clone that this package runs from, or None for an installed wheel."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "workspace.yaml").is_file() else None


def _default_data_dir() -> Path:
    if network.test_folder is not None:
        return network.test_folder / "default"
    project = project_dir()
    try:
        return project / "data" if project else user_data_path("orpipeline", appauthor=False)
    except RuntimeError:  # as in a container with an unknown user
        raise SettingsError(f"This user has no home folder. Set {PREFIX}DATA_DIR to the folder of all data.") from None


def url_scheme(text: str) -> str | None:
    """Return the scheme of a URL such as `s3://bucket` or `ducklake:postgres:...`, or None for a path."""
    match = _SCHEME.match(text)
    return match[1] if match else None


def _local_path(value: object, or_else: str = "") -> object:
    """Return a path with `~` expanded. A relative one is rejected: the current folder must not decide where data is."""
    if not isinstance(value, str | Path):
        return value
    scheme = url_scheme(str(value))
    if scheme is not None:
        raise ValueError(f"must be a path on this machine{or_else}, not {scheme}:")
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ValueError("must be an absolute path, or begin with ~")
    return path


def _store_place(value: object) -> object:
    if not isinstance(value, str) or url_scheme(value) not in OBJECT_STORES:
        stores = ", ".join(f"{name}://" for name in OBJECT_STORES)
        return _local_path(value, f" or the URL of an object store ({stores})")
    if not _STORE_URL.fullmatch(value):
        raise ValueError("must be such as s3://bucket/prefix, without a password, query, fragment or empty part")
    return value.rstrip("/")


def _warehouse_place(value: object) -> object:
    if not isinstance(value, str) or url_scheme(value) != "ducklake":
        return _local_path(value, " or `ducklake:postgres:dbname=... host=...`")
    if not value.startswith("ducklake:postgres:"):
        raise ValueError("must be `ducklake:postgres:dbname=... host=...`: other catalogs admit one machine only")
    return _without_password(value)


def _state_place(value: object) -> object:
    if not isinstance(value, str) or url_scheme(value) not in ("postgresql", "postgres"):
        return _local_path(value, " or the URL of a Postgres database (postgresql://)")
    return _without_password(value)


def _without_password(value: str) -> str:
    if _PASSWORD.search(value):
        raise ValueError("must not contain a password, which Dagster would show: set PGPASSWORD or PGPASSFILE")
    return value


LocalPath = Annotated[Path, BeforeValidator(_local_path)]
StorePlace = Annotated[Path | str, BeforeValidator(_store_place)]
"""A folder on this machine, or the URL of an object store."""
WarehousePlace = Annotated[Path | str, BeforeValidator(_warehouse_place)]
"""A DuckDB file on this machine, or a DuckLake with its catalog in Postgres."""
StatePlace = Annotated[Path | str, BeforeValidator(_state_place)]
"""A folder on this machine, or the URL of a Postgres database."""


def place(name: str, value: str, kind: Any) -> Any:
    """Return an option's value as a place of one of the kinds above. Raises SettingsError, which names the option."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SettingsError(f"Invalid option: {name} {reason}.") from None


class Settings(BaseModel):
    """All settings of a pipeline, except for the API key, which is read when the API is called.

        >>> import orpipeline
        >>> settings = orpipeline.Settings(data_dir="/srv/openrouter", start_date="2026-09-01")
        >>> print(settings.warehouse)
        /srv/openrouter/warehouse.duckdb

    Paths may be text, and are absolute. Raises SettingsError for invalid values, such as a URL instead of a folder.
    The error names each setting in one line, and never shows a value, which may be a secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, str_strip_whitespace=True)

    data_dir: LocalPath = Field(default_factory=_default_data_dir, description="The folder of all data.")
    archive: StorePlace = Field(
        default_factory=lambda given: given["data_dir"] / "raw",
        description="The raw archive: a folder, or an object store such as `s3://bucket/prefix`.",
    )
    warehouse: WarehousePlace = Field(
        default_factory=lambda given: given["data_dir"] / "warehouse.duckdb",
        description="The tables: a DuckDB file, or a DuckLake catalog such as "
        "`ducklake:postgres:dbname=lake host=db.example`. A file's name is also the database's, so do not call it "
        "`openrouter.duckdb`: in your own SQL, `openrouter.task_models` would then be ambiguous.",
    )
    lake_data: StorePlace = Field(
        default_factory=lambda given: given["data_dir"] / "lake",
        description="Where a DuckLake keeps its Parquet files: a folder, or `s3://bucket/prefix`.",
    )
    state: StatePlace = Field(
        default_factory=lambda given: given["data_dir"] / "state",
        description="The shared request budget: a folder, or `postgresql://...` for several hosts. Pipelines that use "
        "the same key need the same place.",
    )
    reports: StorePlace = Field(
        default_factory=lambda given: given["data_dir"] / "reports",
        description="The report's page and pictures, and the published copy: a folder, or an object store.",
    )
    start_date: date = Field(
        default=DEFAULT_START_DATE,
        description="The first daily partition, as YYYY-MM-DD, for `daily_partitions()` and every code location. The "
        "default is before any public snapshot of the endpoint. If you do not set it, `orpipeline dev` begins with the "
        "first archived day.",
    )
    lock_wait_seconds: float = Field(
        default=LOCK_WAIT_SECONDS,
        ge=0,
        description="How many seconds to wait for another process that has locked the warehouse.",
    )
    base_url: str = Field(default=DEFAULT_BASE_URL, description="The API's address, without `/classifications/task`.")
    requests_per_minute: int = Field(
        default=REQUESTS_PER_MINUTE,
        ge=1,
        le=REQUESTS_PER_MINUTE,
        description="The most requests in a minute for all processes with the same `state`.",
    )
    requests_per_day: int = Field(
        default=REQUESTS_PER_DAY,
        ge=1,
        le=REQUESTS_PER_DAY,
        description="The most requests in 24 hours for all processes with the same `state`.",
    )
    alert_webhook: SecretStr | None = Field(
        default=None, description="The URL to which `alert_sensor` posts when a person should look."
    )
    http_referer: str | None = Field(default=None, description="Sent to the API as `HTTP-Referer`.")
    app_title: str | None = Field(default=None, description="Sent to the API as `X-OpenRouter-Title`.")
    app_categories: str | None = Field(default=None, description="Sent to the API as `X-OpenRouter-Categories`.")

    if TYPE_CHECKING:
        # What a type checker accepts, which is more than the fields' own types. A test has all of them.
        def __init__(
            self,
            *,
            data_dir: str | Path = ...,
            archive: str | Path = ...,
            warehouse: str | Path = ...,
            lake_data: str | Path = ...,
            state: str | Path = ...,
            reports: str | Path = ...,
            start_date: str | date = ...,
            lock_wait_seconds: float = ...,
            base_url: str = ...,
            requests_per_minute: int = ...,
            requests_per_day: int = ...,
            alert_webhook: str | SecretStr | None = ...,
            http_referer: str | None = ...,
            app_title: str | None = ...,
            app_categories: str | None = ...,
        ) -> None: ...

    @model_validator(mode="wrap")
    @classmethod
    def _raise_one_line(cls, values: Any, validated: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validated(values)
        except ValidationError as error:
            problems = (
                f"{e['loc'][0]} ({PREFIX}{str(e['loc'][0]).upper()}): {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors(include_input=False, include_context=False)
                if e["type"] != "default_factory_not_called"  # follows from an invalid data folder
            )
            raise SettingsError(f"Invalid settings: {'; '.join(problems)}.") from None

    @field_validator("base_url")
    @classmethod
    def _require_plain_http_url(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^/@?#]+(/[^?#]*)?", value):
            raise ValueError("must be an http:// or https:// URL, without a user, password, query or fragment")
        return value.rstrip("/")

    @property
    def is_lake(self) -> bool:
        """Whether the warehouse is a DuckLake."""
        return isinstance(self.warehouse, str) and self.warehouse.startswith("ducklake:")

    @property
    def published(self) -> Path | str:
        """The DuckDB file that readers open: a copy of the warehouse, under the same name, where the reports are.

        A lake needs no copy: there is no such file then, only the Parquet files beside it.
        """
        name = self.warehouse.name if isinstance(self.warehouse, Path) else "warehouse.duckdb"
        copy = f"{self.reports}/published/{name}"
        return Path(copy) if isinstance(self.reports, Path) else copy

    @property
    def spool(self) -> Path:
        """Where a fetched response waits until an archive in an object store has it: a folder for each archive."""
        return self.data_dir / "spool" / sha256(str(self.archive).encode()).hexdigest()[:12]


def load_settings(environment: Mapping[str, str] = os.environ, **given: object) -> Settings:
    """Return the settings that are `given`, and the others from the environment; an empty variable counts as unset.

    Raises SettingsError as `Settings` does.
    """
    # Secrets and files of variables often end with a newline.
    variables = {name: environment.get(PREFIX + name.upper(), "").strip() for name in Settings.model_fields}
    return Settings.model_validate({name: value for name, value in variables.items() if value} | given)


test_places: Mapping[str, object] = {}
"""Settings that replace those in code while a pipeline of `orpipeline.testing` is active; otherwise none."""


def used_settings(given: Settings | None) -> Settings:
    """Return the given settings, or the environment's. In a test with a pipeline, their places are that pipeline's."""
    settings = given or load_settings()
    return settings.model_copy(update=dict(test_places)) if test_places else settings


def api_key(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the environment's current API key, or None."""
    return environment.get(API_KEY, "").strip() or None
