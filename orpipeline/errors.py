"""Every error that orpipeline raises on purpose, as one tree that you catch at the level you need.

Each error has `next_attempt`: what it means for the next attempt to fetch or load a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


class NextAttempt(StrEnum):
    """What an error means for the next attempt to fetch a day."""

    TRANSIENT = "transient"
    """It passes without help: retry at growing intervals."""
    STATES_TIME = "states a time"
    """The API or the request budget states when the next request may be sent."""
    NEEDS_PERSON = "needs a person"
    """A retry fails in the same way until a person changes something, for example the API key."""
    NEEDS_OPENROUTER = "needs OpenRouter"
    """A retry fails in the same way until OpenRouter serves another response."""


class OrpipelineError(Exception):
    """An error for a person to read: what happened, to what, and what to do.

    The command line prints it in one line, and the Dagster UI shows it as the run's failure. Any other exception
    is a bug in orpipeline. No message contains the API key.

        >>> import orpipeline
        >>> try:
        ...     rows = orpipeline.read("leaderboard")
        ... except orpipeline.OrpipelineError as error:
        ...     print(type(error).__name__)
        WarehouseError
    """

    next_attempt = NextAttempt.TRANSIENT

    def __init__(self, message: str, *, next_attempt: NextAttempt | None = None) -> None:
        super().__init__(message)
        if next_attempt is not None:
            self.next_attempt = next_attempt


class SettingsError(OrpipelineError):
    """A setting, a variable of the environment, or a path that you gave is wrong.

    >>> import orpipeline
    >>> try:
    ...     settings = orpipeline.Settings(data_dir="data")
    ... except orpipeline.SettingsError as error:
    ...     print(error)
    Invalid settings: data_dir (ORPIPELINE_DATA_DIR): must be an absolute path, or begin with ~.
    """

    next_attempt = NextAttempt.NEEDS_PERSON


class OpenRouterError(OrpipelineError):
    """The API gave no usable response.

    >>> import orpipeline
    >>> api = orpipeline.OpenRouterResource(base_url="https://openrouter.ai/api/v1", state="/srv/openrouter/state")
    >>> try:
    ...     response = api.client().fetch()
    ... except orpipeline.OpenRouterError as error:
    ...     print(type(error).__name__)
    ApiKeyError
    """


class ApiKeyError(OpenRouterError):
    """No API key is set, it would be sent unencrypted, or the API does not accept it (401, 403)."""

    next_attempt = NextAttempt.NEEDS_PERSON


class StatusError(OpenRouterError):
    """The API sent an error.

    `status` is the HTTP status, or the `error.code` of an error body with HTTP status 200. `retry_at` is the earliest
    time (UTC) for the next request, or None if the API states no usable one.
    """

    def __init__(self, message: str, *, status: int, retry_at: datetime | None = None) -> None:
        next_attempt = NextAttempt.STATES_TIME if retry_at else NextAttempt.NEEDS_PERSON if status == 400 else None
        super().__init__(message, next_attempt=next_attempt)
        self.status = status
        self.retry_at = retry_at


class RateLimitedError(StatusError):
    """429: too many requests."""

    next_attempt = NextAttempt.STATES_TIME


class BudgetSpentError(RateLimitedError):
    """No request was sent: the request budget is spent, or a cool-down has not ended. `retry_at` is when it may be."""


class TransportError(OpenRouterError):
    """No complete response arrived: no connection, a broken one, or a timeout. The client has already retried."""


class UnreadableResponseError(OpenRouterError):
    """The status is 200, but the body is not a JSON object in UTF-8, is too large, or contains the API key.

    `body` is the part that was read, without the API key.
    """

    def __init__(self, message: str, *, body: bytes) -> None:
        super().__init__(message)
        self.body = body


class DayNotAvailableError(OrpipelineError):
    """A day's response is not archived, and the API does not serve it yet, or no longer serves it."""


class StoreError(OrpipelineError):
    """A folder, an object store, or the database of the request budget cannot be read or written.

    `next_attempt` is NEEDS_PERSON if its settings or permissions are wrong, and TRANSIENT if it cannot be reached.
    """


class DamagedResponseError(StoreError):
    """An archived file is damaged: its bytes do not have the sha256 of its name."""

    next_attempt = NextAttempt.NEEDS_PERSON


class InvalidSnapshotError(OrpipelineError):
    """A response breaks a rule of severity ERROR, so its day's tables are unchanged.

    `findings` has every broken rule and row, with the columns of `orpipeline.contracts.findings.FINDINGS_SCHEMA`.
    """

    next_attempt = NextAttempt.NEEDS_OPENROUTER

    def __init__(self, message: str, findings: pl.DataFrame) -> None:
        super().__init__(message)
        self.findings = findings


class WarehouseError(OrpipelineError):
    """The warehouse cannot be opened, read or written. Its tables are unchanged.

    >>> import orpipeline
    >>> warehouse = orpipeline.resources()["openrouter_warehouse"]
    >>> try:
    ...     with warehouse.get_connection() as connection:
    ...         rows = connection.sql("FROM prices").fetchall()
    ... except orpipeline.WarehouseError as error:
    ...     print(type(error).__name__)
    WarehouseError
    """

    next_attempt = NextAttempt.NEEDS_PERSON


class WarehouseBusyError(WarehouseError):
    """Another process, or another thread of this one, has locked the warehouse.

    >>> import duckdb
    >>> import orpipeline
    >>> path = orpipeline.resources()["openrouter_warehouse"].database
    >>> notebook = duckdb.connect(path, read_only=True)
    >>> try:
    ...     with orpipeline.WarehouseResource(database=path, lock_wait_seconds=0).get_connection():
    ...         print("not locked")
    ... except orpipeline.WarehouseBusyError:
    ...     print("locked: use orpipeline.read in the notebook")
    locked: use orpipeline.read in the notebook
    >>> notebook.close()
    """

    next_attempt = NextAttempt.TRANSIENT


class DamagedWarehouseError(WarehouseError):
    """The file is damaged, or is not a DuckDB database. The next load keeps it aside and fills a new one."""

    next_attempt = NextAttempt.TRANSIENT


class NotPublishedError(WarehouseError):
    """There is nothing to read yet: no published copy, or no lake.

    >>> import orpipeline
    >>> try:
    ...     rows = orpipeline.read("snapshots", settings=orpipeline.Settings(data_dir="/srv/new"))
    ... except orpipeline.NotPublishedError:
    ...     print("nothing loaded yet")
    nothing loaded yet
    """


class MissingDaysError(WarehouseError):
    """The tables lack days that an asset loads. `days` has them, oldest first.

    >>> import dagster as dg
    >>> import orpipeline
    >>> @dg.asset(
    ...     partitions_def=orpipeline.daily_partitions(),
    ...     ins={"models": dg.AssetIn(orpipeline.asset_key("task_models"))},
    ... )
    ... def model_count(models) -> int:
    ...     return len(models)
    >>> assets = [model_count, *orpipeline.external_specs()]
    >>> try:
    ...     dg.materialize(assets, resources=orpipeline.resources(), partition_key="2026-09-01")
    ... except orpipeline.MissingDaysError as error:
    ...     print(*error.days)
    2026-09-01
    """

    def __init__(self, message: str, *, days: Sequence[date]) -> None:
        super().__init__(message)
        self.days = tuple(days)


class PartlyImportedError(OrpipelineError):
    """An import rejected some files or responses, and imported all others.

    `rejected` has the source and the reason of each.
    """

    next_attempt = NextAttempt.NEEDS_PERSON

    def __init__(self, message: str, rejected: Sequence[tuple[str, str]]) -> None:
        super().__init__(message)
        self.rejected = tuple(rejected)


class DagsterStateError(OrpipelineError):
    """Dagster's state cannot be opened, read or written. Fetching does not depend on it."""
