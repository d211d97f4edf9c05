"""Where this process may send its HTTP requests. In tests: to this machine only."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

from orpipeline.errors import SettingsError

TESTING = "ORPIPELINE_TESTING"
"""The pytest plugin sets this variable, for child processes: then no request leaves this machine."""
test_folder: Path | None = None
"""The test session's folder, in place of the default data folder; the pytest plugin sets it. None outside tests."""


def is_loopback(host: str) -> bool:
    """Return whether a URL's host is this machine, by its address or as `localhost`. No name is looked up."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_allowed(host: str) -> None:
    """Raise SettingsError before a request to another machine, if this process belongs to a test session.

    `host` is the URL's host. Without one, a request fails before it is sent.
    """
    is_testing = test_folder is not None or bool(os.environ.get(TESTING))
    if is_testing and host and not is_loopback(host):
        raise SettingsError(
            f"A test would have sent a request to {host}; no request was sent. Use the fixture `openrouter`, whose API "
            "is on this machine. If a test needs the real API, run it without the plugin `orpipeline.testing.plugin`."
        )
