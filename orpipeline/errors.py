"""The root of every error that orpipeline raises on purpose."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class NextAttempt(StrEnum):
    """What an error means for the next attempt to fetch a day."""

    TRANSIENT = "transient"
    """It passes without help: retry at growing intervals."""
    STATES_TIME = "states a time"
    """The API or the request budget states when the next request may be sent."""
    NEEDS_PERSON = "needs a person"
    """A retry fails in the same way until a person changes something, for example the API key."""
    NEEDS_OPENROUTER = "needs OpenRouter"
    """A retry fails in the same way until OpenRouter serves another answer."""


class OrpipelineError(Exception):
    """An error for a person to read: what happened, to what, and what to do.

    The command line prints it in one line, and the Dagster UI shows it as the run's failure. Any other exception
    is a bug in orpipeline. No message contains the API key. `next_attempt` is set by each class.

        >>> import orpipeline
        >>> try:
        ...     rows = orpipeline.read("leaderboard")
        ... except orpipeline.OrpipelineError as error:
        ...     print(type(error).__name__)
        NoSuchTableError
    """

    next_attempt: ClassVar[NextAttempt] = NextAttempt.TRANSIENT


class DagsterStateError(OrpipelineError):
    """Dagster's state cannot be opened, read or written. Fetching does not depend on it.

    `during_run` is True if it failed after a run had started.
    """

    def __init__(self, message: str, *, during_run: bool = False) -> None:
        super().__init__(message)
        self.during_run = during_run


class NetworkInTestError(OrpipelineError):
    """A test would have sent a request to another machine. No connection was opened, and no name was looked up."""

    next_attempt = NextAttempt.NEEDS_PERSON


class SettingsError(OrpipelineError):
    """A setting has an invalid value.

    >>> import orpipeline
    >>> try:
    ...     settings = orpipeline.Settings(data_dir="data")
    ... except orpipeline.SettingsError as error:
    ...     print(error)
    Invalid settings: data_dir (ORPIPELINE_DATA_DIR): must be an absolute path, or begin with ~.
    """

    next_attempt = NextAttempt.NEEDS_PERSON
