"""Access to object stores through obstore: Amazon S3 and compatible servers, Google Cloud Storage, Azure Blob Storage.

Credentials, region and endpoint come from each store's own standard variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`), which
obstore reads. Only S3 is tested against a server; to the others, no request was ever sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orpipeline.errors import NextAttempt, OrpipelineError
from orpipeline.network import require_allowed

if TYPE_CHECKING:
    from obstore.store import ObjectStore

TIMEOUT_SECONDS = 8.0
"""How long one request may take. An answer has some 100 kB."""
_CONNECT_SECONDS = 3
_RETRY_SECONDS = 10  # no attempt starts later than this after the first one
_MAX_RETRIES = 5


class StoreError(OrpipelineError):
    """An object store rejects a request: its settings or permissions are wrong."""

    next_attempt = NextAttempt.NEEDS_PERSON


class StoreUnreachableError(StoreError):
    """An object store cannot be reached now, does not answer in time, or answers with a server error."""

    next_attempt = NextAttempt.TRANSIENT


def open_store(url: str, *, setting: str, timeout_seconds: float = TIMEOUT_SECONDS) -> ObjectStore:
    """Return the store at a URL: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

    No request is sent. `setting` is the variable that has the URL, for errors. A request that fails is retried for
    some seconds. Raises StoreError if obstore is not installed or the store's own variables are incomplete, and
    NetworkInTestError in a test whose endpoint is not this machine.
    """
    try:
        from obstore.store import from_url
    except ImportError:
        raise StoreError(
            f"{setting} is an object store, which needs obstore: install `orpipeline[object-store]`."
        ) from None
    for host in _hosts(url, os.environ):
        require_allowed(host)
    with store_errors("open", url, setting=setting):
        return from_url(
            url,
            client_options={
                "timeout": timedelta(seconds=timeout_seconds),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                # With options of our own, obstore no longer reads this from the environment.
                "allow_http": _is_true(os.environ.get("AWS_ALLOW_HTTP") or os.environ.get("AZURE_ALLOW_HTTP")),
            },
            retry_config={
                "max_retries": _MAX_RETRIES,
                "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=2),
                    "base": 2,
                },
            },
        )


def check_store(url: str, *, setting: str) -> None:
    """Raise StoreError if the store at a URL cannot be listed. Changes nothing, so it does not try to write."""
    store = open_store(url, setting=setting)
    import obstore

    with store_errors("list", url, setting=setting):
        next(iter(obstore.list(store, chunk_size=1)), None)


def require_writable(url: str, *, setting: str) -> None:
    """Write the small object `.orpipeline`. Raises StoreError if the store at a URL cannot be written."""
    store = open_store(url, setting=setting)
    import obstore

    with store_errors("write", url, setting=setting):
        obstore.put(store, ".orpipeline", b"Data of orpipeline.\n", use_multipart=False)


def hosts(url: str) -> list[str]:
    """Return the host that the store at a URL is on, without the one that has its credentials."""
    return list(_hosts(url, os.environ))[:1]


@contextmanager
def store_errors(verb: str, url: str, *, setting: str) -> Iterator[None]:
    """Turn obstore's errors into a StoreError of one line. `verb` is what was done: `read`, `write`, `list`.

    What an object's absence or presence means is the caller's to decide: FileNotFoundError, and obstore's
    AlreadyExistsError and PreconditionError, pass through. obstore's own messages do not: they have many lines, and
    may contain signed URLs.
    """
    from obstore import exceptions

    try:
        yield
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
        raise
    except FileNotFoundError as error:
        if not _NO_BUCKET.search(str(error)):
            raise
        raise _explained(verb, url, setting, str(error)) from None
    except (exceptions.BaseError, ValueError, OSError) as error:
        is_denied = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
        raise _explained(verb, url, setting, str(error), is_denied=is_denied) from None


_STATUS = re.compile(r"status code: ([1-5][0-9]{2})|\bstatus: ([1-5][0-9]{2})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified bucket does not exist", re.IGNORECASE)
# Where a virtual machine gets its credentials: obstore requests them there if the environment has none.
_METADATA = re.compile(r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google\.internal")
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def _explained(verb: str, url: str, setting: str, message: str, *, is_denied: bool = False) -> StoreError:
    """Return the error with what obstore's message is about, but without its text."""
    parts = urlsplit(url)
    variables = _VARIABLES.get(parts.scheme, "the store's own variables")
    status, code = _status(message), _CODE.search(message)
    stated = f" (HTTP {status}{f' {code[1]}' if code else ''})" if status else ""
    start = f"Cannot {verb} {url} ({setting})"
    if _NO_BUCKET.search(message) or (status == 404 and not is_denied):
        return StoreError(f"{start}: the bucket {parts.netloc} does not exist{stated}. Create it, or fix the URL.")
    if _METADATA.search(message):
        return StoreError(f"{start}: no credentials found. Set {variables}.")
    if "BadScheme" in message:
        return StoreError(f"{start}: the endpoint is http://, not https://. Set AWS_ALLOW_HTTP=true to allow that.")
    if verb == "open" or "MissingAccount" in message:
        return StoreError(f"{start}: the store's own variables are incomplete or invalid. Check {variables}.")
    if status in (301, 307) or (code and code[1] == "AuthorizationHeaderMalformed"):
        return StoreError(f"{start}: the bucket is in another region{stated}. Set AWS_REGION.")
    if is_denied or status in (401, 403):
        return StoreError(f"{start}: access denied{stated}. Check {variables}, and the permissions of their owner.")
    if status is not None and status < 500 and status not in (408, 429):
        return StoreError(f"{start}: the store rejected the request{stated}.")
    if status is not None:
        return StoreUnreachableError(f"{start}: the store answered with an error{stated}. Try again later.")
    reason = "it did not answer in time" if re.search(r"kind: Timeout|TimedOut", message) else "it cannot be reached"
    return StoreUnreachableError(f"{start}: {reason}. Check the network and the endpoint, or try again later.")


def _status(message: str) -> int | None:
    """Return the HTTP status of the store's answer, or None if it did not answer."""
    found = _STATUS.search(message)
    return int(found[1] or found[2]) if found else None


def _hosts(url: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the hosts that a store sends requests to."""
    parts = urlsplit(url)
    names, default = {
        "s3": (("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "s3.amazonaws.com"),
        "gs": (("GOOGLE_BASE_URL",), "storage.googleapis.com"),
        "az": (("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"), "blob.core.windows.net"),
    }[parts.scheme]
    endpoint = next((environment[name] for name in names if environment.get(name)), f"https://{default}")
    yield urlsplit(endpoint).hostname or default
    if parts.scheme == "s3" and not environment.get("AWS_ACCESS_KEY_ID"):
        yield urlsplit(environment.get("AWS_METADATA_ENDPOINT", "")).hostname or "169.254.169.254"


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "yes", "on")
