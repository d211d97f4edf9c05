"""Files in a folder on this machine or in an object store, through obstore: one interface, one kind of error.

The object stores are Amazon S3 and compatible servers, Google Cloud Storage and Azure Blob Storage. Credentials, region
and endpoint come from each store's own standard variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`), which obstore reads. Only
S3 is tested against a server; to the others, no request was ever sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, from_url

from orpipeline.errors import NextAttempt, StoreError
from orpipeline.network import require_allowed

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import RetryConfig

TIMEOUT_SECONDS = 20.0
"""How long one request to an object store may take: a response of 30 kB, or a part of the published copy."""
_CONNECT_SECONDS = 3
_RETRIES: RetryConfig = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=10),  # no attempt starts later than this after the first one
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}
_PART_BYTES = 8_000_000
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".md": "text/plain; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
}
"""With these, a browser shows a file and does not download it."""


class Store:
    """Files under names such as `2026-10-06/page.html`, below `place`: a folder, or the URL of an object store.

    A file is there whole or not at all, also after a crash; a local one is on the disk when its writer returns. Reading
    creates nothing, and the first write creates a folder, which only its owner can read if it is `private`. `setting`
    is the variable that has the place, for errors. All methods raise StoreError.
    """

    def __init__(self, place: Path | str, *, setting: str, private: bool = False) -> None:
        self.place = place
        self._setting = setting
        self._mode = 0o700 if private else 0o777

    @property
    def is_local(self) -> bool:
        """Whether the files are on this machine."""
        return isinstance(self.place, Path)

    def address(self, name: str) -> Path | str:
        """Return where a file is: its path, or its URL."""
        return self.place / name if isinstance(self.place, Path) else f"{self.place}/{name}"

    def entries(self, folder: str = "") -> dict[str, ObjectMeta]:
        """Return the files below a folder, by name. A request to an object store returns up to 1,000."""
        if not self._exists(folder):
            return {}
        with self._errors("list", folder):
            found = obstore.list(self._store, folder or None).collect()
        return {one["path"]: one for one in sorted(found, key=lambda one: one["path"])}

    def read(self, name: str) -> bytes | None:
        """Return a file's content, or None if there is no such file."""
        if not self._exists(""):
            return None
        with suppress(FileNotFoundError), self._errors("read", name):
            return bytes(obstore.get(self._store, name).bytes())
        return None

    def create(self, name: str, content: bytes) -> bool:
        """Create a file; return False if it exists, whatever its content is."""
        with suppress(AlreadyExistsError):
            self._put(name, content, mode="create")
            return True
        return False

    def replace(self, contents: Mapping[str, bytes | IO[bytes]]) -> None:
        """Create or replace files, in the mapping's order. Readers see each file's old content or its new one."""
        for name, content in contents.items():
            self._put(name, content)

    def move(self, name: str, to: str) -> bool:
        """Rename a file; return False if there is none, or one of the new name."""
        if not self.is_local:  # S3 has no rename, and its copy would replace a file
            content = self.read(name)
            is_moved = content is not None and self.create(to, content)
            if is_moved:
                self.remove(name)
            return is_moved
        with suppress(FileNotFoundError, AlreadyExistsError), self._errors("write", name):
            obstore.rename(self._store, name, to, overwrite=False)
            self._sync(to, is_new=False)
            return True
        return False

    def remove(self, *names: str) -> None:
        """Remove files; those that do not exist are passed over."""
        for name in names:
            with suppress(FileNotFoundError), self._errors("write", name):
                obstore.delete(self._store, name)

    def sweep(self, pattern: str, *, before: float) -> None:
        """Remove incomplete local files that killed writers left before a time (epoch seconds).

        `pattern` is a glob of the files' complete names: other programs' files can have such names, too.
        """
        if isinstance(self.place, Path) and self.place.is_dir():
            with self._errors("write", ""):
                for path in self.place.glob(f"{pattern}#[0-9]*"):  # how obstore names a file until it is complete
                    if path.is_file() and path.stat().st_mtime < before:
                        path.unlink(missing_ok=True)

    def _exists(self, folder: str) -> bool:
        with self._errors("list", folder):
            return not isinstance(self.place, Path) or (self.place / folder).is_dir()

    def _put(self, name: str, content: bytes | IO[bytes], **how: Any) -> None:
        if not self.is_local:
            content_type = _CONTENT_TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")
            # Objects are replaced, and some stores let others keep a public one for an hour.
            how |= {"attributes": {"Content-Type": content_type, "Cache-Control": "no-cache"}}
        if isinstance(content, bytes):
            how["use_multipart"] = False
        with self._errors("write", name):
            store = self._store  # creates a private folder first: `mkdir` gives parents another mode
            if isinstance(self.place, Path):
                (self.place / name).parent.mkdir(mode=self._mode, parents=True, exist_ok=True)
            obstore.put(store, name, content, chunk_size=_PART_BYTES, **how)
            self._sync(name)

    def _sync(self, name: str, *, is_new: bool = True) -> None:
        """Return when a local file and its name are on the disk."""
        if not isinstance(self.place, Path):
            return
        path = self.place / name
        if is_new:
            sync(path)
        for folder in path.parents:
            sync(folder)
            if folder == self.place:
                break

    @cached_property
    def _store(self) -> Any:
        if isinstance(self.place, Path):
            self.place.mkdir(mode=self._mode, parents=True, exist_ok=True)
            return LocalStore(self.place)
        require_allowed(host_of(self.place))
        options: Any = {
            "timeout": timedelta(seconds=TIMEOUT_SECONDS),
            "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            # With options of our own, obstore no longer reads this from the environment.
            "allow_http": _is_true(os.environ.get("AWS_ALLOW_HTTP") or os.environ.get("AZURE_ALLOW_HTTP")),
        }
        try:
            return from_url(self.place, client_options=options, retry_config=_RETRIES)
        except (exceptions.BaseError, ValueError) as error:
            raise _of_object_store("open", self.place, self._setting, error) from None

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        """Turn errors into a StoreError of one line. A file's absence or presence is the caller's to interpret.

        obstore's own messages have many lines, and may contain signed URLs.
        """
        address = self.address(name) if name else self.place
        try:
            yield
        except (exceptions.BaseError, ValueError, OSError) as error:
            is_of_file = isinstance(error, AlreadyExistsError | FileNotFoundError)
            if is_of_file and (self.is_local or not _NO_BUCKET.search(str(error))):
                raise
            if self.is_local:
                raise _of_folder(verb, address, self._setting, error) from None
            raise _of_object_store(verb, str(address), self._setting, error) from None


def host_of(url: str) -> str:
    """Return the host that the store at a URL is on."""
    variables, default = _HOSTS[urlsplit(url).scheme]
    endpoint = next((os.environ[name] for name in variables if os.environ.get(name)), "")
    return urlsplit(endpoint).hostname or default


def sync(path: Path) -> None:
    """Return when a file's content, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_OS_MESSAGE = re.compile(r'message: "([^"]+)"')
_STATUS = re.compile(r"\b(?:status code|status): ([1-5][0-9]{2})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified bucket does not exist", re.IGNORECASE)
# By what obstore reports, after `<verb class status>`: what is wrong, and what a person can do.
_PROBLEMS = (
    (_NO_BUCKET, "the bucket {bucket} does not exist{stated}. Create it, or fix the URL."),
    # Where a virtual machine gets its credentials: obstore requests them there if the environment has none.
    (r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google\.internal", "no credentials found. Set {variables}."),
    ("BadScheme", "the endpoint is http://, not https://. Set AWS_ALLOW_HTTP=true to allow that."),
    ("^<open |MissingAccount", "the store's own variables are incomplete or invalid. Check {variables}."),
    ("^<.* 30[17]>|AuthorizationHeaderMalformed", "the bucket is in another region{stated}. Set AWS_REGION."),
    (
        "^<.*(PermissionDenied|Unauthenticated|40[13]>)",
        "access denied{stated}. Check {variables}, and the permissions of their owner.",
    ),
    ("^<.* 404>", "the bucket {bucket} does not exist{stated}. Create it, or fix the URL."),
    ("^<.* 4(?!08|29)..>", "the store rejected the request{stated}."),
)
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_HOSTS = {
    "s3": (("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "s3.amazonaws.com"),
    "gs": (("GOOGLE_BASE_URL",), "storage.googleapis.com"),
    "az": (("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"), "blob.core.windows.net"),
}


def _of_folder(verb: str, path: Path | str, setting: str, error: Exception) -> StoreError:
    message = _OS_MESSAGE.search(str(error))
    reason = error.strerror if isinstance(error, OSError) and error.strerror else message[1] if message else str(error)
    return StoreError(
        f"Cannot {verb} {path} ({setting}): {reason.splitlines()[0]}. Nothing else was changed. Free disk space or fix "
        "the permissions.",
        next_attempt=NextAttempt.NEEDS_PERSON,
    )


def _of_object_store(verb: str, url: str, setting: str, error: Exception) -> StoreError:
    """Return the error with what obstore's message is about, but without its text."""
    message, parts = str(error), urlsplit(url)
    status, code = (found[1] if (found := one.search(message)) else "" for one in (_STATUS, _CODE))
    stated = f" (HTTP {status}{f' {code}' if code else ''})" if status else ""
    reported = f"<{verb} {type(error).__name__} {status}> {message}"
    problem = next((text for pattern, text in _PROBLEMS if re.search(pattern, reported)), None)
    next_attempt = NextAttempt.NEEDS_PERSON if problem else NextAttempt.TRANSIENT
    if problem is None and status:
        problem = "the store sent an error{stated}. Try again later."
    elif problem is None:
        is_late = "kind: Timeout" in message or "TimedOut" in message
        reason = "it did not respond in time" if is_late else "it cannot be reached"
        problem = f"{reason}. Check the network and the endpoint, or try again later."
    told = problem.format(bucket=parts.netloc, stated=stated, variables=_VARIABLES[parts.scheme])
    return StoreError(f"Cannot {verb} {url} ({setting}): {told}", next_attempt=next_attempt)


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "yes", "on")
