"""The settings: environment variables, read in this one place."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orpipeline.errors import SettingsError

REQUESTS_PER_MINUTE = 30
REQUESTS_PER_DAY = 500
"""What the API allows: a minute for a key, a day for an account. A setting may lower it, not raise it."""
LOCK_WAIT_SECONDS = 60.0
"""How long is waited for another process that holds the warehouse's file."""
DEFAULT_BASE_URL = "https://openrouter.ai/api/v1"
FIRST_DOCUMENTED_DAY = date(2026, 6, 17)
"""The first day that the API's documentation names."""


def project_dir() -> Path | None:
    """Return the folder of the source tree that this package runs from, or None for an installed wheel."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "workspace.yaml").is_file() else None


def _default_data_dir() -> Path:
    return (project_dir() or Path.cwd()) / "data"


def _absolute(value: object) -> object:
    # "~/x" and "x" mean what they mean in a shell, and go on meaning it if a process changes its folder.
    return Path(value).expanduser().absolute() if isinstance(value, str | Path) else value


AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]


class Settings(BaseSettings):
    """Everything that the environment says, with its defaults.

    A variable in the environment wins over the same name in a file `.env` in the current folder. An empty
    variable counts as unset.
    """

    model_config = SettingsConfigDict(
        env_prefix="ORPIPELINE_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    api_key: SecretStr | None = Field(default=None, validation_alias="OPENROUTER_API_KEY")
    base_url: str = DEFAULT_BASE_URL
    data_dir: AbsolutePath = Field(default_factory=_default_data_dir)
    archive: str = ""
    warehouse: str = ""
    requests_per_minute: int = Field(default=REQUESTS_PER_MINUTE, ge=1, le=REQUESTS_PER_MINUTE)
    requests_per_day: int = Field(default=REQUESTS_PER_DAY, ge=1, le=REQUESTS_PER_DAY)
    lock_wait_seconds: float = Field(default=LOCK_WAIT_SECONDS, ge=0)
    start_date: date = FIRST_DOCUMENTED_DAY
    alert_webhook: SecretStr | None = None
    http_referer: str | None = None
    app_title: str | None = None
    app_categories: str | None = None

    @field_validator("base_url")
    @classmethod
    def _is_plain_http_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// URL")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must hold no user, password, query or fragment")
        return value.rstrip("/")

    @property
    def archive_dir(self) -> Path:
        """The folder of the raw archive."""
        return _local_path(self.archive, "ORPIPELINE_ARCHIVE") if self.archive else self.data_dir / "raw"

    @property
    def warehouse_path(self) -> Path:
        """The DuckDB file of the tables."""
        if not self.warehouse:
            return self.data_dir / "warehouse.duckdb"
        return _local_path(self.warehouse, "ORPIPELINE_WAREHOUSE")

    @property
    def budget_path(self) -> Path:
        """The SQLite file of the shared budget of requests."""
        return self.data_dir / "state" / "budget.sqlite"

    @property
    def reports_dir(self) -> Path:
        """Where the report's files are written."""
        return self.data_dir / "reports"

    @property
    def dagster_home(self) -> Path:
        """Where the commands keep Dagster's state while DAGSTER_HOME is not set.

        The source tree with its own data folder keeps it in `.dagster`, where `dagster dev` in that folder
        finds it too; any other data folder keeps its own, so that no run shows up beside another's tables.
        """
        root = project_dir()
        if root is not None and self.data_dir == root / "data":
            return root / ".dagster"
        return self.data_dir / "dagster"


def _local_path(value: str, variable: str) -> Path:
    scheme = value.split(":", 1)[0].lower() if ":" in value else ""
    if len(scheme) > 1:  # one letter is a drive
        raise SettingsError(
            f"{variable} is {scheme}:..., which this version cannot use; set it to a path on this machine."
        )
    return Path(value).expanduser().absolute()


def load_settings() -> Settings:
    """Read the settings from the environment as it is now.

    Raises SettingsError naming each variable that cannot be used (and never its value, which may be a
    secret).
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{_variable(e['loc'])}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False, include_context=False)
        )
        raise SettingsError(f"The environment has settings that cannot be used: {problems}.") from None


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "?"
    return name if name.isupper() else f"ORPIPELINE_{name.upper()}"
