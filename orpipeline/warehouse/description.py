"""What a folder of Parquet files tells about itself: README, licence, citation, data dictionary and data package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import polars as pl

from orpipeline.clock import day_spans, missing_days
from orpipeline.contracts.dictionary import data_dictionary
from orpipeline.contracts.tables import RELATIONS, VIEWS

_LICENSE_URL = "https://creativecommons.org/licenses/by/4.0/"
_README = """# {title}

{origin} Computed with orpipeline: days {days}{missing}.

- **What a row is**: see DATA_DICTIONARY.md. Each table is one Parquet file; `datapackage.json` lists them with their
  columns, row counts and sha256. If there is a `warehouse.duckdb` here, it has the same tables.
- **Shares are lower bounds.** OpenRouter publishes, for each task, the models with the most requests. What a list
  leaves out can belong to any model, so each share has an upper bound beside it, and a rank is a range where the lists
  and the rounding (3 decimals) allow several.
- **It is a sample**: the traffic that one router classified, over the 7 days up to `as_of`. It says nothing about other
  providers, absolute volumes or quality. The error of the sample is not published.
- **What may be compared**: shares of the same scope and measure on different days, if the possible change in
  `model_trends` has one sign. Days less than 7 apart share traffic. A missing day stays missing.
- **Prices** in `models`, `model_prices` and `named_leaderboard` are the list prices of that day.

Cite it as CITATION states. The licence is in LICENSE.
"""
_LICENSE = """The figures come from OpenRouter (openrouter.ai/rankings), which publishes them under the Creative Commons
Attribution 4.0 International licence (CC BY 4.0). You may share and adapt them if you give credit as CITATION states
and indicate changes.

{url}
"""


@dataclass(frozen=True)
class Described:
    """One Parquet file: the table's name, where it is in the described folder, its number of rows, and its content."""

    name: str
    path: str
    rows: int
    content: bytes


def description(files: Sequence[Described], snapshots: pl.DataFrame) -> Mapping[str, bytes]:
    """Return the files that describe a folder of tables, by name. `snapshots` are the rows of that table."""
    days = snapshots["as_of"].to_list()
    missing = missing_days(days)
    demo = pl.col("origin") == "demo"
    # The newest day's citation; if there are both real and demo days, one of each.
    cited = [snapshots.filter(of_kind).sort("as_of")["citation"].tail(1) for of_kind in (~demo, demo)]
    demo_days, is_demo = snapshots.filter(demo)["as_of"].to_list(), snapshots.filter(~demo).is_empty()
    title = "Made-up data of orpipeline's demo" if is_demo else "OpenRouter task and model shares"
    made_up = "These figures are made up: nothing here is from OpenRouter."
    origin = made_up if is_demo else "Source: OpenRouter (openrouter.ai/rankings)."
    if demo_days and not is_demo:
        origin += (
            f" The figures of {', '.join(day_spans(demo_days))} are made up by orpipeline's demo: in `snapshots`, "
        )
        origin += "their `origin` is `demo`."
    readme = _README.format(
        title=title,
        origin=origin,
        days=", ".join(day_spans(days)),
        missing=f"; missing: {', '.join(day_spans(missing))}" if missing else "",
    )
    package = {
        "profile": "data-package",
        "name": "openrouter-task-shares-demo" if is_demo else "openrouter-task-shares",
        "title": title,
        "licenses": [] if is_demo else [{"name": "CC-BY-4.0", "path": _LICENSE_URL}],
        "sources": [] if is_demo else [{"title": "OpenRouter rankings", "path": "https://openrouter.ai/rankings"}],
        "resources": [_resource(file) for file in files],
    }
    return {
        "README.md": readme.encode(),
        "LICENSE": (f"{made_up}\n" if is_demo else _LICENSE.format(url=_LICENSE_URL)).encode(),
        "CITATION": "".join(f"{citation}\n" for of_kind in cited for citation in of_kind).encode(),
        "DATA_DICTIONARY.md": data_dictionary().encode(),
        "datapackage.json": (json.dumps(package, indent=2, ensure_ascii=False) + "\n").encode(),
    }


_TYPES = {pl.String: "string", pl.Date: "date", pl.Boolean: "boolean", pl.Float64: "number", pl.Datetime: "datetime"}


def _resource(file: Described) -> dict[str, Any]:
    model = RELATIONS[file.name]
    fields = [
        {
            "name": name,
            "type": _TYPES.get(column.dtype.type.base_type(), "integer"),
            "description": column.description,
            "constraints": {"required": not column.nullable and file.name not in VIEWS},
        }
        for name, column in model.columns().items()
    ]
    return {
        "name": file.name,
        "path": file.path,
        "description": model.summary(),
        "format": "parquet",
        "mediatype": "application/vnd.apache.parquet",
        "bytes": len(file.content),
        "hash": f"sha256:{sha256(file.content).hexdigest()}",
        "rows": file.rows,
        "schema": {"fields": fields, "primaryKey": model.primary_key()},
    }
