from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from orpipeline.defs.alerts import alert_sensor
from orpipeline_tests.answers import DAY, answer
from orpipeline_tests.world import World

pytestmark = pytest.mark.usefixtures("at_noon")


class Webhook:
    """A real HTTP server that takes what is posted to it."""

    def __init__(self, status: int = 200) -> None:
        self.posted: list[dict[str, str]] = []
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
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    hook = Webhook()
    monkeypatch.setenv("ORPIPELINE_ALERT_WEBHOOK", hook.url)
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


def _alert(world: World) -> None:
    world.keep(answer(bend=lambda data: data.update(window_days=1)))
    result = world.run(DAY)
    event = next(event for event in result.all_events if event.event_type is dg.DagsterEventType.RUN_FAILURE)
    context = dg.build_run_status_sensor_context(
        sensor_name="alert_sensor",
        dagster_instance=world.instance,
        dagster_run=result.dagster_run,
        dagster_event=event,
    ).for_run_failure()
    alert_sensor(context)


def test_a_failed_run_is_posted_with_its_day_its_reason_and_what_it_means(world: World, webhook: Webhook) -> None:
    _alert(world)
    (message,) = webhook.posted
    for said in ("failed for 2026-10-06", "window_is_7_days", "keep what they had", "snapshot_sensor"):
        assert said in message["text"]


def test_without_a_webhook_nothing_is_posted(world: World, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORPIPELINE_ALERT_WEBHOOK")
    _alert(world)
    assert webhook.posted == []


@pytest.mark.parametrize("broken", ["http://127.0.0.1:9/nobody", "not a url", "http://a..b/", "status 500"])
def test_a_webhook_that_fails_harms_nothing_and_shows_no_secret(
    world: World, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], broken: str
) -> None:
    webhook.status = 500
    if broken != "status 500":
        monkeypatch.setenv("ORPIPELINE_ALERT_WEBHOOK", f"{broken}/secret-path")
    _alert(world)
    assert "secret-path" not in "".join(capfd.readouterr())
