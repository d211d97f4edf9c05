"""A message to a webhook when a run fails: what failed, what it means for the day, what to do."""

from __future__ import annotations

import dagster as dg
import httpx

from orpipeline.settings import load_settings

_TIMEOUT_SECONDS = 10.0
_LENGTH = 1500


@dg.run_failure_sensor(
    name="alert_sensor",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Posts a failed run to ORPIPELINE_ALERT_WEBHOOK (Slack-compatible JSON). Off while that is not set.",
)
def alert_sensor(context: dg.RunFailureSensorContext) -> None:
    """Post the message; whatever goes wrong with that is logged and harms no run."""
    webhook = load_settings().alert_webhook
    if webhook is None:
        return
    message = alert_text(context.dagster_run, _said(context))
    try:
        httpx.post(webhook.get_secret_value(), json={"text": message}, timeout=_TIMEOUT_SECONDS).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        # The URL is a secret: the error's own text may hold it.
        context.log.warning(f"The alert could not be posted to ORPIPELINE_ALERT_WEBHOOK: {type(error).__name__}")


def alert_text(run: dg.DagsterRun, said: str) -> str:
    """Return what the message says of a failed run."""
    day = run.tags.get("dagster/partition")
    means = (
        f"The tables keep what they had for {day}. Until it is mended, snapshot_sensor says in its ticks when it "
        "tries again, or what it waits for."
        if day
        else "The tables keep what they had for the days that failed."
    )
    what = f"orpipeline: run {run.run_id[:8]} of {run.job_name} failed{f' for {day}' if day else ''}."
    return f"{what}\n{said[:_LENGTH]}\n{means}"


def _said(context: dg.RunFailureSensorContext) -> str:
    """Return the failure's own words: they say what to do."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return data.user_failure_data.description
        if data.error is not None:
            return data.error.message
    return context.failure_event.message or "No reason was given; the run's log may have one."
