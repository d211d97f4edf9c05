"""Messages to a webhook about the newest day: one when a person should look, and one when it is over.

The sensor looks at the state of the day, not at failed runs, so it also speaks when nothing was started at all: without
a key, with the schedules switched off, or while the request budget cannot be used.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
import httpx
from pydantic import SecretStr

from orpipeline.clock import newest_completed_day, utc_now
from orpipeline.defs.backoff import RECAPTURE_AT, URGENT, due, duration
from orpipeline.defs.names import DEFAULT_PREFIX, Names
from orpipeline.defs.runs import materialized, outcomes
from orpipeline.defs.schedules import NO_KEY
from orpipeline.errors import NextAttempt
from orpipeline.network import is_loopback, require_allowed
from orpipeline.settings import api_key
from orpipeline.text import one_line, plain

MISSING_AT = timedelta(hours=6)
"""A day that is missing this long after midnight UTC is an incident, whatever the reason."""
_TIMEOUT_SECONDS = 10.0
_LENGTH = 1500
_MOST_UNPOSTED = 20
# A reason can contain names from upstream. Slack's control sequences, such as `<!channel>` and `<url|text>`, need `<`.
# Slack ignores a bare `@channel`, but other receivers of the same JSON (Mattermost, Discord) notify everybody.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "\N{FULLWIDTH COMMERCIAL AT}"})
# Slack shows `*` and `_` as they are, and loads no page or picture behind an address in the text.
_LITERAL = {"mrkdwn": False, "unfurl_links": False, "unfurl_media": False}


@dataclass(frozen=True)
class _Incident:
    """What was said about a day, and the messages that could not be posted yet, as the sensor's cursor has them."""

    day: str = ""
    said: int = 0
    """0: nothing; 1: that the day is late; 2: that a person should look, or that little time is left."""
    unposted: list[str] = field(default_factory=list)


def alert_sensor(names: Names, webhook: SecretStr | None) -> dg.SensorDefinition:
    """Return the sensor. It reads this pipeline's newest events only."""

    @dg.sensor(
        name=names.job("alert_sensor"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        description=(
            "Posts to ORPIPELINE_ALERT_WEBHOOK (Slack-compatible JSON) when a person should look at the newest day: at "
            "once if it is rejected or needs a setting; at 06:00 UTC and 3 hours before it is gone if it is missing, "
            "for whatever reason; and when it is over."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if webhook is None:
            return dg.SensorResult(skip_reason="ORPIPELINE_ALERT_WEBHOOK is not set, so nothing is posted.")
        incident = _read(context.cursor)
        incident = _look(context.instance, names, incident, utc_now())
        unposted = list(incident.unposted)
        while unposted and _is_posted(context, webhook.get_secret_value(), unposted[0]):
            unposted.pop(0)
        incident = replace(incident, unposted=unposted[-_MOST_UNPOSTED:])
        waiting = f"{len(unposted)} messages could not be posted." if unposted else "Every message is posted."
        words = f"{f'An incident: {incident.day}.' if incident.said else 'No incident.'} {waiting}"
        return dg.SensorResult(skip_reason=words, cursor=f"{words}\n{json.dumps(asdict(incident))}")

    return sensor


def _read(cursor: str | None) -> _Incident:
    try:
        read = _Incident(**json.loads((cursor or "").rpartition("\n")[2]))
        date.fromisoformat(read.day)
    except (TypeError, ValueError, RecursionError):
        return _Incident()
    return read


def _look(instance: dg.DagsterInstance, names: Names, incident: _Incident, now: datetime) -> _Incident:
    """Return the incident as it is now, with the messages that it calls for."""
    who = "orpipeline" if names.prefix == DEFAULT_PREFIX else f"orpipeline ({names.prefix})"
    messages = list(incident.unposted)

    def say(what: str, reason: str) -> None:
        messages.append(alert_text(f"{who}: {what}", reason))

    day = newest_completed_day(now)
    if incident.said and incident.day != str(day):
        then = date.fromisoformat(incident.day)
        if materialized(instance, names, then):
            say(f"{then} is in the tables, with the figures that were fetched before.", "The API no longer serves it.")
        else:
            say(f"{then} is not in the tables, and the API no longer serves it.", "Import it if you have it elsewhere.")
    said = incident.said if incident.day == str(day) else 0
    is_loaded = materialized(instance, names, day)
    since = due(day, RECAPTURE_AT) if is_loaded else None
    newest = next((outcome for _, outcome in outcomes(instance, names, [day], since)), None)
    needs_look = newest is not None and newest.next_attempt in (NextAttempt.NEEDS_PERSON, NextAttempt.NEEDS_OPENROUTER)
    left = due(day, timedelta(days=1)) - now
    if is_loaded and not (newest and newest.error):
        if said:
            say(f"{day} is in the tables. All is well again.", "Nothing is left to do.")
        said = 0
    elif is_loaded and newest and needs_look and not said:
        say(f"{day} is in the tables, but its second fetch failed, {duration(left)} before it is gone.", newest.reason)
        said = 2
    elif not is_loaded:
        is_late = now >= due(day, MISSING_AT)
        wanted = 2 if left <= URGENT or needs_look else 1 if is_late else 0
        if wanted > said:
            reason = newest.reason if newest and newest.error else _why_nothing_was_tried()
            say(f"{day} is not in the tables, and {duration(left)} are left to fetch it.", reason)
            said = wanted
    return _Incident(str(day), said, messages)


def _why_nothing_was_tried() -> str:
    if api_key() is None:
        return NO_KEY
    return (
        "No attempt has recorded why. Check that the schedules and `snapshot_sensor` are on, and what `orpipeline "
        "doctor` and the newest run say."
    )


def _is_posted(context: dg.SensorEvaluationContext, url: str, message: str) -> bool:
    try:
        host = httpx.URL(url).host
        require_allowed(host)
        body: dict[str, Any] = {"text": message, **_LITERAL}
        # A proxy must not get a message to this machine: its own loopback address is another one.
        httpx.post(url, json=body, timeout=_TIMEOUT_SECONDS, trust_env=not is_loopback(host)).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ImportError, OSError) as error:
        # The URL is a secret, and the error's own text may contain it.
        context.log.warning(f"Could not post to ORPIPELINE_ALERT_WEBHOOK, so it is tried again: {type(error).__name__}")
        return False
    return True


def alert_text(what: str, reason: str) -> str:
    """Return a message of two lines, escaped for Slack and safe to print."""
    # Cut before escaping, or half an escape could be left at the end.
    return f"{plain(what).translate(_ESCAPES)}\n{one_line(reason)[:_LENGTH].translate(_ESCAPES)}"
