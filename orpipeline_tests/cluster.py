"""Dagster as several processes on loopback, with `deploy/dagster.postgres.yaml`: code locations, webserver and daemon.

Each process leads a group of its own, so `kill` also ends its children, as the loss of a host does.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import yaml

from orpipeline.contracts.tables import TABLES
from orpipeline_tests.servers import PostgresServer, S3Server, free_port

PROJECT = Path(__file__).parents[1]
DEPLOY = PROJECT / "deploy"
_ASSETS = ("raw_task_classifications", *TABLES)
_ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH", "VIRTUAL_ENV")
_T = TypeVar("_T")


class GraphQLError(RuntimeError):
    """The webserver rejected a query, or sent an error."""


class Cluster:
    """Dagster's processes in `folder`, with their state in `database`, an empty database of the Postgres server.

        with Cluster(folder, postgres, s3, {"ORPIPELINE_ARCHIVE": "s3://bucket/raw", ...}) as cluster:
            cluster.wait_until_ready()
            runs = cluster.launch_days(["2026-10-01", "2026-10-02"])
            cluster.wait_for_runs(runs)

    `settings_env` has orpipeline's variables for all processes, and the S3 server's own are added. `locations` are code
    locations by name, with the module of each: a process each. The output of a process is in `folder/<name>.log`.
    """

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer,
        s3: S3Server,
        settings_env: Mapping[str, str],
        *,
        database: str,
        locations: Mapping[str, str],
    ) -> None:
        self.folder, self.locations = folder, dict(locations)
        self.ports = {name: free_port() for name in (*locations, "webserver")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.home = folder / "dagster_home"
        self.home.mkdir(parents=True)
        (self.home / "dagster.yaml").write_text((DEPLOY / "dagster.postgres.yaml").read_text())
        servers = [
            {"grpc_server": {"host": "127.0.0.1", "port": self.ports[name], "location_name": name}}
            for name in locations
        ]
        (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": servers}))
        self.environment = {
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(postgres.port),
            "DAGSTER_POSTGRES_USER": "postgres",
            "DAGSTER_POSTGRES_PASSWORD": "not-checked",  # the test's server trusts this machine
            "DAGSTER_POSTGRES_DB": database,
            "DAGSTER_EVENT_BATCH_SIZE": "1000",
            "ORPIPELINE_TESTING": "1",
            "ORPIPELINE_DATA_DIR": str(folder / "data"),
            **s3.environment(),
            **settings_env,
        }
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.ports['webserver']}", timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self.start_all()
            on_failure.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and their children."""
        for name in list(self.processes):
            self.kill(name)
        self._client.close()

    # Processes

    def start_all(self) -> None:
        """Create Dagster's tables, then start the code locations, the webserver and the daemon."""
        # Processes that create them at once wait for each other only for a second.
        migrate = [str(Path(sys.executable).with_name("dagster")), "instance", "migrate"]
        subprocess.run(migrate, env=self.environment, cwd=self.folder, check=True)
        for name in (*self.locations, "webserver", "daemon"):
            self.start(name)

    def start(self, name: str) -> None:
        """Start a process: a code location by its name, `webserver` or `daemon`."""
        workspace = ["-w", str(self.folder / "workspace.yaml")]
        listen = ["-h", "127.0.0.1", "-p", str(self.ports.get(name, 0))]
        commands = {
            "webserver": ["dagster-webserver", *listen, *workspace],
            "daemon": ["dagster-daemon", "run", *workspace],
            **{
                location: ["dagster", "api", "grpc", *listen, "-m", module, "--location-name", location]
                for location, module in self.locations.items()
            },
        }
        program, *arguments = commands[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *arguments],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill a process and its children at once: for a code location, also its runs."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_run(self, run_id: str) -> None:
        """Kill a run's process, as soon as the run's log names it. The code location then reports the run as failed."""

        def process_of_run() -> int | None:
            found = re.search(r"\(pid: (\d+)\)", "\n".join(self.messages(run_id)))
            return int(found[1]) if found else None

        os.kill(wait_until(process_of_run, 120, f"run {run_id} to log its process"), signal.SIGKILL)

    # The webserver's GraphQL API

    def query(self, text: str, **variables: object) -> dict[str, Any]:
        """Return the data of a GraphQL query. Raises GraphQLError, or httpx.HTTPError if nothing responds."""
        body = self._client.post("/graphql", json={"query": text, "variables": variables}).json()
        if body.get("errors"):
            raise GraphQLError(str(body["errors"])[:2000])
        data: dict[str, Any] = body["data"]
        return data

    def wait_until_ready(self, seconds: float = 180) -> None:
        """Return when all code locations respond, the webserver has loaded them, and the daemon is healthy.

        Raises RuntimeError if a process has ended.
        """

        def is_ready() -> bool:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(
                        f"{name} ended with {process.returncode}:\n{(self.folder / f'{name}.log').read_text()[-2000:]}"
                    )
            try:
                return (
                    all(listens(port) for port in self.ports.values())
                    and all(self.loaded_locations().values())
                    and all(self.location_error(name) is None for name in self.locations)
                    and self.daemon_is_healthy()
                )
            except httpx.HTTPError:
                return False

        wait_until(is_ready, seconds, "Dagster to be ready")

    def daemon_is_healthy(self) -> bool:
        """Return whether all of the daemon's required parts report that they work."""
        data = self.query("{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }")
        statuses = data["instance"]["daemonHealth"]["allDaemonStatuses"]
        return bool(statuses) and all(status["healthy"] for status in statuses if status["required"])

    def loaded_locations(self) -> dict[str, bool]:
        """Return whether the webserver has loaded each code location."""
        data = self.query(
            "{ locationStatusesOrError { ... on WorkspaceLocationStatusEntries { entries { name loadStatus } } } }"
        )
        entries = data["locationStatusesOrError"]["entries"]
        loaded = {entry["name"]: entry["loadStatus"] == "LOADED" for entry in entries}
        return {name: loaded.get(name, False) for name in self.locations}

    def location_error(self, name: str) -> str | None:
        """Return why a code location could not be loaded, or None."""
        data = self.query(
            """query ($name: String!) { workspaceLocationEntryOrError(name: $name) {
                 ... on WorkspaceLocationEntry { locationOrLoadError {
                   __typename ... on PythonError { message } } } } }""",
            name=name,
        )
        location = (data["workspaceLocationEntryOrError"] or {}).get("locationOrLoadError") or {}
        return location.get("message")

    def launch_days(self, days: Sequence[str], *, location: str = "orpipeline") -> list[str]:
        """Queue a run of `daily_snapshot` for each day, without the report, and return the runs' ids."""
        return [self._launch(day, location) for day in days]

    def _launch(self, day: str, location: str) -> str:
        parameters = {
            "selector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": location,
                "pipelineName": "daily_snapshot",
                "assetSelection": [{"path": ["openrouter", name]} for name in _ASSETS],
                "assetCheckSelection": None,
            },
            "mode": "default",
            "runConfigData": {"ops": {"openrouter_snapshot": {"config": {"fetch": "auto"}}}},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
        }
        launched = self.query(
            """mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) { __typename
                 ... on LaunchRunSuccess { run { runId } } ... on Error { message }
                 ... on RunConfigValidationInvalid { errors { message } } } }""",
            parameters=parameters,
        )["launchRun"]
        if "run" not in launched:
            raise GraphQLError(str(launched))
        return str(launched["run"]["runId"])

    def runs(self, **matching: object) -> dict[str, str]:
        """Return the status of the runs that match a `RunsFilter`, by default of all, newest first."""
        data = self.query(
            """query ($filter: RunsFilter) { runsOrError(filter: $filter, limit: 500) {
                 ... on Runs { results { runId status } } } }""",
            filter=matching,
        )
        return {run["runId"]: run["status"] for run in data["runsOrError"]["results"]}

    def wait_for_runs(self, run_ids: Sequence[str], seconds: float = 300) -> dict[str, str]:
        """Return the statuses of runs when all have ended."""

        def ended() -> dict[str, str] | None:
            found = self.runs(runIds=list(run_ids))
            return found if len(found) == len(run_ids) and set(found.values()) <= _ENDED else None

        return wait_until(ended, seconds, f"{len(run_ids)} runs to end")

    def messages(self, run_id: str) -> list[str]:
        """Return the messages of a run's log, oldest first."""
        data = self.query(
            """query ($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection { events {
                 ... on MessageEvent { message } } } } }""",
            id=run_id,
        )
        return [event["message"] for event in data["logsForRun"]["events"] if "message" in event]

    def materialized_days(self, asset: str) -> set[str]:
        """Return the materialized partitions of `openrouter/<asset>`."""
        data = self.query(
            """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
                 assetPartitionStatuses { ... on TimePartitionStatuses { ranges { status startKey endKey } }
                   ... on DefaultPartitionStatuses { materializedPartitions } }
                 partitionKeys } } }""",
            key={"path": ["openrouter", asset]},
        )["assetNodeOrError"]
        keys: list[str] = data["partitionKeys"]
        ranges = [found for found in data["assetPartitionStatuses"]["ranges"] if found["status"] == "MATERIALIZED"]
        return {key for key in keys for found in ranges if found["startKey"] <= key <= found["endKey"]}


def listens(port: int) -> bool:
    """Return whether a process accepts connections on a port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(result: Callable[[], _T | None], seconds: float, what: str) -> _T:
    """Return the first true result. Raises TimeoutError after a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = result()
        if found:
            return found
        time.sleep(0.2)
    raise TimeoutError(f"Waited {seconds:g} s for {what}")
