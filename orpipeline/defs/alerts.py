"""A message to a webhook when a run fails: the run, its day, and the reason, which explains what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
import httpx
from pydantic import SecretStr

from orpipeline.defs.names import Names
from orpipeline.network import is_loopback, require_allowed
from orpipeline.text import one_line, plain

_TIMEOUT_SECONDS = 10.0
_LENGTH = 1500
# A reason can contain names from upstream. Slack's control sequences, such as `<!channel>` and `<url|text>`, need `<`.
# Slack ignores a bare `@channel`, but other receivers of the same JSON (Mattermost, Discord) notify everybody.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "\N{FULLWIDTH COMMERCIAL AT}"})
# Slack shows `*` and `_` as they are, and loads no page or picture behind an address in the text.
_LITERAL = {"mrkdwn": False, "unfurl_links": False, "unfurl_media": False}


def alert_sensor(names: Names, jobs: Sequence[Any], webhook: SecretStr | None) -> dg.SensorDefinition:
    """Return the sensor, which watches these jobs only."""

    @dg.run_failure_sensor(
        name=names.job("alert_sensor"),
        monitored_jobs=list(jobs),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts a failed run to ORPIPELINE_ALERT_WEBHOOK (Slack-compatible JSON), if that is set.",
    )
    def sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        if webhook is None:
            return dg.SkipReason("ORPIPELINE_ALERT_WEBHOOK is not set, so failed runs are not posted.")
        message = alert_text(context.dagster_run, _reason(context))
        try:
            _post(webhook.get_secret_value(), {"text": message, **_LITERAL})
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            # The URL is a secret, and the error's own text may contain it.
            context.log.warning(f"Could not post the alert to ORPIPELINE_ALERT_WEBHOOK: {type(error).__name__}")
        return None

    return sensor


def _post(url: str, body: dict[str, Any]) -> None:
    host = httpx.URL(url).host
    require_allowed(host)
    # A proxy must not get a message to this machine: its own loopback address is another one.
    httpx.post(url, json=body, timeout=_TIMEOUT_SECONDS, trust_env=not is_loopback(host)).raise_for_status()


def alert_text(run: dg.DagsterRun, reason: str) -> str:
    """Return the message about a failed run: two lines, escaped for Slack and safe to print."""
    day = run.tags.get("dagster/partition")
    what = f"orpipeline: run {run.run_id[:8]} of {run.job_name} failed{f' for {day}' if day else ''}."
    # Cut before escaping, or half an escape could be left at the end.
    return f"{plain(what).translate(_ESCAPES)}\n{one_line(reason)[:_LENGTH].translate(_ESCAPES)}"


def _reason(context: dg.RunFailureSensorContext) -> str:
    """Return the failure's own message, which explains what to do."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return data.user_failure_data.description
        if data.error is not None:
            return data.error.message
    return context.failure_event.message or "No reason was given; see the run's log."
