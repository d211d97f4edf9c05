"""One message when a person should look at the newest day, and one when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
import time_machine
from pydantic import SecretStr

from orpipeline.capture import Fetch
from orpipeline.defs.build import build_defs
from orpipeline.settings import Settings
from orpipeline.testing import LocalApi, Reply, sample_response
from orpipeline_tests.responses import DAY, Bend
from orpipeline_tests.servers import Webhook
from orpipeline_tests.world import NOON, World

MIDNIGHT = NOON.replace(hour=0)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


class Alerts:
    """The sensor with its cursor, as Dagster's daemon evaluates it."""

    def __init__(self, world: World, url: str | None) -> None:
        self.instance = world.instance
        self.cursor: str | None = None
        settings = Settings(data_dir=world.folder, alert_webhook=SecretStr(url) if url else None)
        self.sensor = build_defs(settings, alerts=True).resolve_sensor_def("alert_sensor")

    def tick(self) -> str:
        """Evaluate the sensor; return why it requested no run."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        assert isinstance(result.skip_reason, dg.SkipReason)
        self.cursor = result.cursor or self.cursor
        return str(result.skip_reason.skip_message)


def reject(world: World, bend: Bend = lambda data: data.update(window_days=1)) -> None:
    """Run a day that is rejected, as automation starts it."""
    world.store(sample_response(DAY, change=bend))
    assert not world.run(DAY, automated=True).success


@pytest.mark.usefixtures("clock")
def test_a_rejected_day_is_one_message_with_its_reason_and_one_when_it_is_over(world: World, webhook: Webhook) -> None:
    alerts = Alerts(world, webhook.url)
    reject(world)
    for _ in range(3):
        alerts.tick()
    (message,) = webhook.texts()
    for part in ("2026-10-06 is not in the tables, and 12 h 00 min are left", "window_is_7_days", "archived in"):
        assert part in message
    world.store(sample_response(DAY), fetched_at=NOON + timedelta(minutes=1))
    assert world.run(DAY).success
    alerts.tick()
    assert ["2026-10-06 is in the tables" in text for text in webhook.texts()] == [True]
    assert alerts.tick() == "No incident. Every message is posted."


def test_what_passes_by_itself_is_a_message_at_six_and_three_hours_before_the_day_is_gone(
    online: World, api: LocalApi, clock: time_machine.Traveller, webhook: Webhook
) -> None:
    alerts = Alerts(online, webhook.url)
    api.serve(Reply(b"<html>busy</html>", 400 + 103))
    said = {}
    for hour in range(1, 24):
        clock.move_to(MIDNIGHT + hour * HOUR)
        if hour < 3:
            online.run(DAY, fetch=Fetch.auto, automated=True)
        alerts.tick()
        if texts := webhook.texts():
            said[hour] = texts
    assert list(said) == [6, 21]
    assert all("503" in text for (text,) in said.values())
    clock.move_to(MIDNIGHT + 25 * HOUR)
    alerts.tick()
    assert "2026-10-06 is not in the tables, and the API no longer serves it." in webhook.texts()[0]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("pipeline", ["world", "online"])
def test_a_day_that_nothing_was_started_for_is_a_message_too(
    pipeline: str, webhook: Webhook, request: pytest.FixtureRequest
) -> None:
    alerts = Alerts(request.getfixturevalue(pipeline), webhook.url)
    alerts.tick()
    (message,) = webhook.texts()
    assert ("OPENROUTER_API_KEY is not set" if pipeline == "world" else "schedules and `snapshot_sensor`") in message


@pytest.mark.usefixtures("clock")
def test_a_message_that_could_not_be_posted_is_posted_later_and_the_url_stays_secret(
    world: World, webhook: Webhook, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts = Alerts(world, webhook.url)
    reject(world)
    webhook.status = 500
    assert alerts.tick() == "An incident: 2026-10-06. 1 messages could not be posted."
    webhook.status = 200
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    alerts.tick()
    monkeypatch.delenv("SSL_CERT_FILE")
    assert webhook.posted == [] or len(webhook.posted) == 1  # a proxy's or a certificate's fault breaks no tick
    alerts.tick()
    assert len(webhook.texts()) == 1
    for broken in ("http://127.0.0.1:9/no-server", "not a url"):
        Alerts(world, f"{broken}/secret-path").tick()
    assert "secret-path" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("clock")
def test_a_name_in_the_reason_notifies_nobody_and_slack_shows_it_as_it_is(world: World, webhook: Webhook) -> None:
    def bend(data: dict[str, Any]) -> None:
        name = "<!channel> @here & *all* \u202e http://evil.invalid/x.png"
        for model in data["classifications"][0]["models"][:2]:  # twice the same model
            model["id"] = name

    reject(world, bend)
    Alerts(world, webhook.url).tick()
    (message,) = webhook.posted
    for part in ("&lt;!channel&gt; \N{FULLWIDTH COMMERCIAL AT}here &amp; *all*", "\\u202e"):
        assert part in message["text"]
    assert not {"<", ">", "@", "\u202e"} & set(message["text"])
    assert len(message["text"].splitlines()) == 2
    assert not any(message[option] for option in ("mrkdwn", "unfurl_links", "unfurl_media"))


@pytest.mark.usefixtures("clock")
def test_without_a_webhook_nothing_is_posted(world: World, webhook: Webhook) -> None:
    assert Alerts(world, None).tick() == "ORPIPELINE_ALERT_WEBHOOK is not set, so nothing is posted."
    assert webhook.posted == []


def test_build_defs_has_the_sensor_if_a_webhook_is_set(world: World, webhook: Webhook) -> None:
    for url, expected in ((webhook.url, True), (None, False)):
        settings = Settings(data_dir=world.folder, alert_webhook=SecretStr(url) if url else None)
        assert ("alert_sensor" in {sensor.name for sensor in build_defs(settings).sensors or []}) == expected
