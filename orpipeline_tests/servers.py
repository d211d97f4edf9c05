"""Real servers on loopback for the tests: Postgres, and an S3 server. Each runs in a process of its own.

Debian's package `postgresql` has the programs of Postgres. They refuse to run as root; the server then runs as the
user `postgres`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Self

_START_SECONDS = 60.0


def free_port() -> int:
    """Return a port on loopback that nothing listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def postgres_programs() -> Path | None:
    """Return the folder with `initdb` and `postgres`, or None if they are not installed."""
    on_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    return Path(on_path).resolve().parent if on_path else (debian[-1] if debian else None)


class PostgresServer:
    """A Postgres server in `folder`, which must not exist, with the user `postgres` and no password.

    `stop` and `start` take it away and bring it back, with its data and its port.
    """

    def __init__(self, folder: Path) -> None:
        programs = postgres_programs()
        if programs is None:
            raise RuntimeError("Postgres is not installed (Debian: apt-get install postgresql)")
        self._programs, self.folder, self.port = programs, folder, free_port()
        folder.mkdir(mode=0o755)
        if os.geteuid() == 0:
            for parent in folder.parents:  # the user `postgres` must reach the folder
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    with suppress(OSError):
                        parent.chmod(parent.stat().st_mode | 0o011)
            shutil.chown(folder, "postgres")
        self._run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        """Start the server, and return when it accepts connections."""
        options = (
            f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200 "
            "-c shared_buffers=32MB"
        )
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", str(self.folder / "log"), "-w", "start"
        )

    def stop(self) -> None:
        """Stop the server at once, and end its connections."""
        with suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        self.sql(f'CREATE DATABASE "{name}"')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement and return what `psql` prints, unaligned and without headers."""
        return self._run(
            "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, "-Atc", statement
        )

    def url(self, database: str = "postgres") -> str:
        """Return a database's URL, for `ORPIPELINE_STATE`."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def lake(self, database: str = "postgres") -> str:
        """Return the name of a DuckLake with its catalog in a database, for `ORPIPELINE_WAREHOUSE`."""
        return f"ducklake:postgres:dbname={database} host=127.0.0.1 port={self.port} user=postgres"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> str:
        # A server must not inherit a pipe: reading that would end with the server only.
        command = [str(self._programs / program), *arguments]
        output = self.folder / f"{program}.out"
        is_root = os.geteuid() == 0
        with output.open("wb") as file:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                user="postgres" if is_root else None,
                cwd=self.folder,
                env={**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
            )
        text = output.read_text(encoding="utf-8")
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, text)
        return text.strip()


class S3Server:
    """An S3 server (moto's) on loopback. It keeps objects in memory, so a killed one forgets them.

    `freeze` and `thaw` take it away and bring it back: requests wait until their own timeout.
    """

    KEY, SECRET, REGION = "made-up-key", "made-up-secret", "us-east-1"

    def __init__(self) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait_for_port(self.port, self._process)

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Return the variables with which clients use this server, or a proxy of it at `endpoint`."""
        return {
            "AWS_ACCESS_KEY_ID": self.KEY,
            "AWS_SECRET_ACCESS_KEY": self.SECRET,
            "AWS_REGION": self.REGION,
            "AWS_ENDPOINT_URL": endpoint or self.url,
            "AWS_ALLOW_HTTP": "true",
        }

    def create_bucket(self, name: str) -> None:
        """Create an empty bucket."""
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    def freeze(self) -> None:
        """Let the server respond to nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the server respond again."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with exit status {process.returncode}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not listen on port {port} within {_START_SECONDS:g} s")


class Gate:
    """A port on loopback through which clients reach a server, until it is closed: then they are refused at once."""

    def __init__(self, server_port: int) -> None:
        self._server_port, self.port = server_port, free_port()
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self.open()

    @property
    def url(self) -> str:
        """The address through the gate."""
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Let clients through."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def close(self) -> None:
        """Refuse clients, and end the connections that there are."""
        listener, self._listener = self._listener, None
        for connection in [listener, *self._connections]:
            if connection is not None:
                with suppress(OSError):  # it may have ended already
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
        self._connections.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the gate is closed
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._connections += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=_copy, args=[source, target], daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


class Webhook:
    """A real HTTP server that takes what is posted to it."""

    def __init__(self, status: int = 200) -> None:
        self.posted: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.status == 200:
                    outer.posted.append(body)
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.status = status
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-path"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def texts(self) -> list[str]:
        """Return the messages posted since the last call."""
        texts = [message["text"] for message in self.posted]
        self.posted.clear()
        return texts
