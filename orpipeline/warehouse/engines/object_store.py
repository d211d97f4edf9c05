"""DuckDB's access to an object store, with the same standard variables that the archive's client reads."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import duckdb

from orpipeline import network
from orpipeline.warehouse.errors import WarehouseSetupError
from orpipeline.warehouse.layout import literal


def create_secret(connection: duckdb.DuckDBPyConnection, url: str) -> None:
    """Give the connection, and nothing that lasts longer, the environment's access to the bucket of `url`.

    Raises WarehouseSetupError for a store that DuckDB cannot write with the extensions that we have.
    """
    scheme, bucket = urlsplit(url)[:2]
    if scheme != "s3":
        gs = (
            " Google Cloud Storage also answers S3 requests: use s3://, an HMAC key in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL=https://storage.googleapis.com."
        )
        raise WarehouseSetupError(
            f"A lake cannot keep its files in {scheme}://; nothing was changed. Set ORPIPELINE_LAKE_DATA to a folder "
            f"or s3://.{gs if scheme == 'gs' else ''}"
        )
    if not (_variable("AWS_ACCESS_KEY_ID") and _variable("AWS_SECRET_ACCESS_KEY")):
        raise WarehouseSetupError(
            "DuckDB needs a key for a lake's files in an object store; nothing was changed. Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY: a machine's or a pod's role does not reach DuckDB."
        )
    region = _variable("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = urlsplit(_variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT") or "")
    network.require_allowed(endpoint.hostname or f"{bucket}.s3.{region}.amazonaws.com")
    options = {
        "KEY_ID": _variable("AWS_ACCESS_KEY_ID"),
        "SECRET": _variable("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": _variable("AWS_SESSION_TOKEN"),
        "REGION": region,
        "SCOPE": f"s3://{bucket}",
    }
    if endpoint.netloc:
        options |= {"ENDPOINT": endpoint.netloc + endpoint.path.rstrip("/"), "URL_STYLE": "path"}
        options["USE_SSL"] = str(endpoint.scheme == "https").lower()
    given = ", ".join(f"{name} {literal(value)}" for name, value in options.items() if value)
    try:
        connection.execute(f"CREATE TEMPORARY SECRET orpipeline_lake (TYPE s3, {given})")
    except duckdb.Error:
        # DuckDB's message may quote the statement, and so the key.
        raise WarehouseSetupError(
            "DuckDB rejects the object store's variables (AWS_ACCESS_KEY_ID and others); nothing was changed."
        ) from None


def _variable(*names: str) -> str | None:
    return next((value for value in map(os.environ.get, names) if value), None)
