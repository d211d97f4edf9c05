"""What every table's pandera model has: its columns' descriptions and keys, and the rules for single values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from inspect import cleandoc
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl

from orpipeline.contracts import rules
from orpipeline.contracts.rules import Rule

Instant = Annotated[pl.Datetime, "us", "UTC"]
DUCKDB_TYPES: dict[pl.DataType, str] = {
    pl.Date(): "DATE",
    pl.Int32(): "INTEGER",
    pl.Int64(): "BIGINT",
    pl.Float64(): "DOUBLE",
    pl.Boolean(): "BOOLEAN",
    pl.String(): "VARCHAR",
    pl.Datetime("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}
"""The DuckDB type of each polars type that the contracts use."""

ValueRule = tuple[Rule, Callable[[pl.Expr], pl.Expr]]
"""A rule for each value of a column, and the expression that is true for a value that breaks it."""


def column(description: str, *value_rules: ValueRule, key: bool = False, missing: Rule = rules.REQUIRED_FIELDS) -> Any:
    """Return a pandera field that may not be NULL; a NULL breaks the rule `missing`."""
    return pa.Field(description=description, metadata={"key": key, "missing": missing, "values": value_rules})


def key_column(description: str, *value_rules: ValueRule) -> Any:
    """Return a pandera field of the primary key."""
    return column(description, *value_rules, key=True)


def optional_column(description: str, *value_rules: ValueRule) -> Any:
    """Return a pandera field that may be NULL."""
    metadata = {"key": False, "missing": None, "values": value_rules}
    return pa.Field(description=description, nullable=True, metadata=metadata)


class Table(pa.DataFrameModel):
    """A table with rows of days. `as_of` is part of its key."""

    as_of: pl.Date = key_column("The snapshot's day (UTC): the last day of its window, and the partition.")

    class Config:
        strict = True  # a missing or an extra column is an error

    @classmethod
    @cache
    def to_schema(cls) -> pa.DataFrameSchema:
        """Return pandera's schema: the key's columns first, and a check for each rule that rejects a row."""
        schema = super().to_schema()
        schema.columns = dict(sorted(schema.columns.items(), key=lambda item: not item[1].metadata["key"]))
        schema.unique = [name for name, column in schema.columns.items() if column.metadata["key"]]
        _add_checks(schema, "ERROR")
        return schema

    @classmethod
    def response_schema(cls, columns: Collection[str]) -> pa.DataFrameSchema:
        """Return the schema of the columns that a response has, with a check for every rule, also those of `WARN`.

        A response without `window_days` breaks `window_is_7_days` once, and not a rule in each row.
        """
        schema = cls.to_schema()
        schema = schema.remove_columns([name for name in schema.columns if name not in columns])
        schema.columns["window_days"].nullable = True
        _add_checks(schema, "WARN")
        return schema

    @classmethod
    def primary_key(cls) -> list[str]:
        """Return the names of the primary key's columns."""
        return [name for name, column in cls.columns().items() if column.metadata["key"]]

    @classmethod
    def summary(cls) -> str:
        """Return one sentence that describes the table: the first of its class's docstring."""
        return cleandoc(cls.__doc__ or "").partition("\n")[0]

    @classmethod
    def columns(cls) -> dict[str, Any]:
        """Return pandera's columns (`dtype`, `nullable`, `description`) by name, in the table's order."""
        return dict(cls.to_schema().columns)

    @classmethod
    def polars_schema(cls) -> dict[str, pl.DataType]:
        """Return each column's polars type by name, in the table's order."""
        return {name: column.dtype.type for name, column in cls.columns().items()}


def _add_checks(schema: pa.DataFrameSchema, severity: str) -> None:
    for column in schema.columns.values():
        values: Sequence[ValueRule] = column.metadata["values"]
        column.checks = [*column.checks, *(_check(*one) for one in values if one[0].severity == severity)]


def _check(rule: Rule, is_broken: Callable[[pl.Expr], pl.Expr]) -> pa.Check:
    """Return a pandera check with the rule's name. A NULL breaks its column's rule for NULLs, and no other."""

    def holds(data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(~is_broken(pl.col(data.key)).fill_null(False))

    return pa.Check(holds, name=rule.name, description=rule.description)
