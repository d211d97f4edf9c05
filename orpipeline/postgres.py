"""Connections to Postgres. Only this module opens them, and it turns each failure into one clear line.

psycopg is imported with the first connection: without a setting that names Postgres, it need not be installed.
Passwords come from PGPASSWORD or PGPASSFILE, which libpq reads itself. No message contains one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orpipeline.errors import NextAttempt, OrpipelineError
from orpipeline.network import is_loopback, require_allowed

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_SECONDS = 5
"""How long to wait for a connection."""
_DEAD_HOST = {"tcp_user_timeout": "10000", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}
"""A server whose machine is gone is noticed within half a minute, and not after the system's two hours."""


class PostgresError(OrpipelineError):
    """Postgres cannot be reached, does not let this user in, or failed."""


class PostgresRejectedError(PostgresError):
    """Postgres or its client rejects the user, the database or the connection string: a person has to correct it."""

    next_attempt = NextAttempt.NEEDS_PERSON


class PostgresNotInstalledError(PostgresError):
    """A setting names Postgres, but its Python package is not installed."""

    next_attempt = NextAttempt.NEEDS_PERSON


def connect(
    conninfo: str, *, setting: str, application_name: str = "orpipeline", connect_timeout: int = CONNECT_SECONDS
) -> Connection:
    """Return a connection in autocommit mode, to a URL (`postgresql://...`) or to `dbname=... host=...`.

    `setting` is the variable that names the database, for messages; `application_name` shows in `pg_stat_activity`.
    `connect_timeout` is in seconds, for each address of the host. Values in `conninfo` take precedence. No statement is
    prepared, so connection poolers work. Raises PostgresError, in one line, if there is no connection.
    """
    psycopg = _psycopg(setting)
    require_allowed_hosts(conninfo, setting=setting)
    defaults = {"application_name": application_name, "connect_timeout": connect_timeout, **_DEAD_HOST}
    try:
        connection: Connection = psycopg.connect(
            autocommit=True, prepare_threshold=None, **{**defaults, **_given(conninfo, setting)}
        )
    except psycopg.Error as error:
        raise _explained(error, place(conninfo, setting=setting), setting) from None
    return connection


def with_limits(conninfo: str, *, setting: str) -> str:
    """Return a connection string with the time limits of `connect`, for another program's connection."""
    given, limits = _given(conninfo, setting), {"connect_timeout": CONNECT_SECONDS, **_DEAD_HOST}
    missing = {name: value for name, value in limits.items() if name not in given}
    return str(_psycopg(setting).conninfo.make_conninfo(**given, **missing))


def place(conninfo: str, *, setting: str) -> str:
    """Return where a database is, as `Postgres at host:port/database`, without user and password."""
    found = _parameters(conninfo, setting)
    host, port = found.get("host") or found.get("hostaddr") or "localhost", found.get("port", "5432")
    host = f"[{host}]" if ":" in host else host  # an address of IPv6
    shown = host if port in ("", "5432") else f"{host}:{port}"
    return f"Postgres at {shown}/{found.get('dbname') or found.get('user', '')}"


def is_local(conninfo: str, *, setting: str) -> bool:
    """Return whether a database's server is on this machine."""
    found = _parameters(conninfo, setting)
    host = found.get("hostaddr") or found.get("host") or "localhost"
    return all(one.startswith("/") or is_loopback(one) for one in host.split(","))


def require_allowed_hosts(conninfo: str, *, setting: str) -> None:
    """Raise NetworkInTestError if a test session would connect to another machine."""
    found = _parameters(conninfo, setting)
    for name in ("host", "hostaddr", "service"):  # a service's file can name any host
        for host in found.get(name, "").split(","):
            if not host.startswith("/"):  # a socket's folder
                require_allowed(host)


def first_line(error: BaseException) -> str:
    """Return what happened, in one line and without the client's own prefix."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else type(error).__name__
    message = message.removeprefix("connection failed: ").removeprefix("connection is bad: ")
    return message.rpartition("FATAL:  ")[2]


def _explained(error: BaseException, where: str, setting: str) -> PostgresError:
    message = first_line(error)
    kind: type[PostgresError] = PostgresRejectedError
    if "password" in message or "authentication" in message or "pg_hba.conf" in message:
        todo = "Set PGPASSWORD or PGPASSFILE, and the right user"
    elif "does not exist" in message:
        todo = f"Create it, or correct {setting}"
    elif "permission denied" in message:
        todo = f"Grant the permission, or correct {setting}"
    else:
        kind, todo = PostgresError, f"Check that it is running, and {setting}"
    return kind(f"{where} cannot be used: {message}. {todo}.")


def _given(conninfo: str, setting: str) -> dict[str, Any]:
    psycopg = _psycopg(setting)
    try:
        return dict(psycopg.conninfo.conninfo_to_dict(conninfo))
    except psycopg.Error:  # its message can quote a part of the value
        raise PostgresRejectedError(
            f"{setting} is not a valid connection string or URL of a Postgres database."
        ) from None


def _parameters(conninfo: str, setting: str) -> dict[str, str]:
    """Return the parameters with libpq's defaults, among them its own environment variables."""
    psycopg = _psycopg(setting)
    defaults = {d.keyword.decode(): d.val.decode() for d in psycopg.pq.Conninfo.get_defaults() if d.val is not None}
    return {**defaults, **{name: str(value) for name, value in _given(conninfo, setting).items()}}


def _psycopg(setting: str) -> Any:
    try:
        import psycopg
    except ImportError:
        extra = "lake" if "WAREHOUSE" in setting else "postgres"
        raise PostgresNotInstalledError(
            f"{setting} is in Postgres, which needs psycopg: install `orpipeline[{extra}]`."
        ) from None
    return psycopg
