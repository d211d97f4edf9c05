"""The root of every error that orpipeline raises on purpose."""

from __future__ import annotations


class OrpipelineError(Exception):
    """Something that a person has to read: what happened, to what, and what to do about it.

    The command line prints such an error in one line and the Dagster UI shows it as a run's failure; any
    other exception is a defect in orpipeline. No message ever holds the API key.
    """


class SettingsError(OrpipelineError):
    """A setting that cannot be used."""
