"""Where this process may send its HTTP requests."""

from __future__ import annotations

from ipaddress import ip_address

from orpipeline.errors import NetworkInTestError
from orpipeline.settings import is_testing


def is_loopback(host: str) -> bool:
    """Return whether a URL's host is this machine, by its address or as `localhost`. No name is looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_allowed(host: str) -> None:
    """Raise NetworkInTestError before a request to another machine, if this process belongs to a test session.

    `host` is the URL's host. Without one, a request fails before it is sent.
    """
    if is_testing() and host and not is_loopback(host):
        raise NetworkInTestError(
            f"A test would have sent a request to {host}; no request was sent. Use the fixture `openrouter`, whose API "
            "is on this machine. If your tests need the real API, run pytest with `-p no:orpipeline`."
        )
