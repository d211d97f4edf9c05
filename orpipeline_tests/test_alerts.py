from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from orpipeline.defs.build import build_defs
from orpipeline.settings import Settings
from orpipeline.testing import sample_response
from orpipeline_tests.responses import DAY, Bend
from orpipeline_tests.world import QUIET, World

pytestmark = pytest.mark.usefixtures("at_noon")


class Webhook:
    """A real HTTP server that takes what is posted to it."""

    def __init__(self, status: int = 200) -> None:
        self.posted: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.status = status
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-path"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


def _alert(world: World, url: str | None, bend: Bend = lambda data: data.update(window_days=1)) -> None:
    """Run a day that is rejected, and evaluate the sensor on the failed run."""
    world.store(sample_response(DAY, change=bend))
    result = world.run(DAY)
    event = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.RUN_FAILURE)
    context = dg.build_run_status_sensor_context(
        sensor_name="alert_sensor",
        dagster_instance=world.instance,
        dagster_run=result.dagster_run,
        dagster_event=event,
    ).for_run_failure()
    settings = Settings(data_dir=world.folder, alert_webhook=SecretStr(url) if url else None)
    build_defs(settings, alerts=True).resolve_sensor_def("alert_sensor")(context)


def test_a_failed_run_is_posted_with_its_day_and_reason(world: World, webhook: Webhook) -> None:
    _alert(world, webhook.url)
    (message,) = webhook.posted
    for part in ("failed for 2026-10-06", "window_is_7_days", "its tables are unchanged"):
        assert part in message["text"]


def test_a_name_in_the_reason_notifies_nobody_and_slack_shows_it_as_it_is(world: World, webhook: Webhook) -> None:
    def bend(data: dict[str, Any]) -> None:
        name = "<!channel> @here & *all* \u202e http://evil.invalid/x.png"
        for model in data["classifications"][0]["models"][:2]:  # twice the same model
            model["id"] = name

    _alert(world, webhook.url, bend)
    (message,) = webhook.posted
    for part in ("&lt;!channel&gt; \N{FULLWIDTH COMMERCIAL AT}here &amp; *all*", "\\u202e"):
        assert part in message["text"]
    assert not {"<", ">", "@", "\u202e"} & set(message["text"])
    assert len(message["text"].splitlines()) == 2
    assert not any(message[option] for option in ("mrkdwn", "unfurl_links", "unfurl_media"))


def test_without_a_webhook_nothing_is_posted(world: World, webhook: Webhook) -> None:
    _alert(world, None)
    assert webhook.posted == []


@pytest.mark.parametrize("broken", ["http://127.0.0.1:9/no-server", "not a url", "status 500"])
def test_a_failing_webhook_harms_nothing_and_its_url_stays_secret(
    world: World, webhook: Webhook, capfd: pytest.CaptureFixture[str], broken: str
) -> None:
    webhook.status = 500
    _alert(world, webhook.url if broken == "status 500" else f"{broken}/secret-path")
    assert "secret-path" not in "".join(capfd.readouterr())


@dg.op
def fail() -> None:
    raise ValueError("not ours")


@dg.job
def users_job() -> None:
    fail()


def test_it_watches_our_jobs_only(world: World, webhook: Webhook) -> None:
    settings = Settings(data_dir=world.folder, alert_webhook=SecretStr(webhook.url))
    sensor = build_defs(settings, alerts=True).resolve_sensor_def("alert_sensor")

    def tick(cursor: str | None) -> str | None:
        with dg.build_sensor_context(instance=world.instance, cursor=cursor) as context:
            return sensor.evaluate_tick(context).cursor

    world.run(DAY)  # nothing is archived, so it fails
    cursor = tick(None)  # the first tick only looks at what came before
    users_job.execute_in_process(instance=world.instance, raise_on_error=False, run_config=QUIET)
    world.run(DAY)
    tick(cursor)
    (message,) = webhook.posted
    assert "of daily_snapshot failed for 2026-10-06" in message["text"]
