"""Connections to Postgres. Only this module opens them, and it turns each failure into one clear line.

psycopg is imported with the first connection: without a setting that names Postgres, it need not be installed.
Passwords come from PGPASSWORD or PGPASSFILE, which libpq reads itself. No message contains one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orpipeline.errors import NextAttempt, StoreError
from orpipeline.network import is_loopback, require_allowed

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_SECONDS = 5
"""How long to wait for a connection, for each address of the host."""
_LIMITS = {
    "connect_timeout": CONNECT_SECONDS,
    # A server whose machine is gone is noticed within half a minute, and not after the system's two hours.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_SIGNS_OF_WRONG_SETTINGS = ("password", "authentication", "pg_hba.conf", "does not exist", "permission denied")


def connect(
    conninfo: str, *, setting: str, application_name: str = "orpipeline", autocommit: bool = True
) -> Connection:
    """Return a connection to a URL (`postgresql://...`) or to `dbname=... host=...`.

    `setting` is the variable that names the database, for messages; `application_name` shows in `pg_stat_activity`.
    Values in `conninfo` take precedence. No statement is prepared, so connection poolers work. Raises StoreError, in
    one line, if there is no connection.
    """
    require_allowed_hosts(conninfo, setting=setting)
    psycopg, limited = _psycopg(setting), with_limits(conninfo, setting=setting)
    try:
        connection: Connection = psycopg.connect(
            limited, fallback_application_name=application_name, autocommit=autocommit, prepare_threshold=None
        )
    except psycopg.Error as error:
        raise explained(error, place(conninfo, setting=setting), setting) from None
    return connection


def with_limits(conninfo: str, *, setting: str) -> str:
    """Return a connection string with the time limits of `connect`, for another program's connection."""
    return str(_psycopg(setting).conninfo.make_conninfo(**{**_LIMITS, **_given(conninfo, setting)}))


def place(conninfo: str, *, setting: str) -> str:
    """Return where a database is, as `Postgres at host:port/database`, without user and password."""
    found = _parameters(conninfo, setting)
    host = found.get("host") or found.get("hostaddr") or "localhost"
    host = f"[{host}]" if ":" in host else host  # an address of IPv6
    port = "" if found["port"] == "5432" else f":{found['port']}"
    return f"Postgres at {host}{port}/{found.get('dbname') or found.get('user', '')}"


def is_local(conninfo: str, *, setting: str) -> bool:
    """Return whether a database's server is on this machine."""
    return all(is_loopback(host) for host in _hosts(conninfo, setting))


def require_allowed_hosts(conninfo: str, *, setting: str) -> None:
    """Raise SettingsError if a test session would connect to another machine."""
    for host in _hosts(conninfo, setting):
        require_allowed(host)


def first_line(error: BaseException) -> str:
    """Return what happened, in one line and without the client's own prefix."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rpartition("FATAL:  ")[2]


def explained(error: BaseException, where: str, setting: str) -> StoreError:
    """Return the StoreError, in one line, for an error of the database that is `where`."""
    message = first_line(error)
    needs_person = any(sign in message for sign in _SIGNS_OF_WRONG_SETTINGS)
    todo = f"Check that it is running, {setting}, and the user's password (PGPASSWORD or PGPASSFILE) and permissions"
    if "lock timeout" in message:
        todo = "Another process has locked it; try again"
    next_attempt = NextAttempt.NEEDS_PERSON if needs_person else NextAttempt.TRANSIENT
    return StoreError(f"{where} cannot be used: {message}. {todo}.", next_attempt=next_attempt)


def _hosts(conninfo: str, setting: str) -> list[str]:
    """Return the hosts of a database, except for sockets. A service is one, because its file can name any."""
    found = _parameters(conninfo, setting)
    hosts = [host for name in ("host", "hostaddr", "service") for host in found.get(name, "").split(",")]
    return [host for host in hosts if host and not host.startswith("/")]


def _given(conninfo: str, setting: str) -> dict[str, str]:
    psycopg = _psycopg(setting)
    try:
        return {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(conninfo).items()}
    except psycopg.Error:  # its message can quote a part of the value
        message = f"{setting} is not a valid connection string or URL of a Postgres database."
        raise StoreError(message, next_attempt=NextAttempt.NEEDS_PERSON) from None


def _parameters(conninfo: str, setting: str) -> dict[str, str]:
    """Return the parameters with libpq's defaults, among them its own environment variables."""
    defaults = _psycopg(setting).pq.Conninfo.get_defaults()
    return {d.keyword.decode(): d.val.decode() for d in defaults if d.val is not None} | _given(conninfo, setting)


def _psycopg(setting: str) -> Any:
    try:
        import psycopg
    except ImportError:
        message = f"{setting} is in Postgres, which needs psycopg: install `orpipeline[postgres]`."
        raise StoreError(message, next_attempt=NextAttempt.NEEDS_PERSON) from None
    return psycopg
