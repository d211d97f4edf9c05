"""The table of the model catalogue, and the view of its changed prices."""

from __future__ import annotations

import polars as pl

from orpipeline.contracts import rules
from orpipeline.contracts.table import Instant, Table, ValueRule, column, key_column, optional_column

_PRICE: ValueRule = (rules.PRICES, lambda price: ~(price.is_finite() & (price >= 0)))
_NOT_EMPTY: ValueRule = (rules.NAMED, lambda name: name.str.strip_chars() == "")
_LIST_PRICE = "The day's list price of {} tokens, in USD per million; NULL if the model has no fixed price."


class Models(Table):
    """One row per day and model of the catalogue: its name, list prices, and whether its weights are open.

    >>> import orpipeline
    >>> orpipeline.Models.primary_key()
    ['as_of', 'model_id']
    """

    model_id: str = key_column("The model's id in the catalogue, with its variant: `author/model:variant`.", _NOT_EMPTY)
    permaslug: str = column(
        "The id by which classifications name the model, without its variant. Variants share it.", _NOT_EMPTY
    )
    name: str = column("The model's name, such as `Z.ai: GLM 5.3`.")
    author: str = column("The part of the model's id before the `/`.")
    created: Instant = optional_column("When OpenRouter added the model.")
    open_weights: bool = column("Whether the catalogue names a repository with the model's weights.")
    context_length: pl.Int64 = optional_column("The most tokens that a request can have.")
    prompt_price: float = optional_column(_LIST_PRICE.format("prompt"), _PRICE)
    completion_price: float = optional_column(_LIST_PRICE.format("completion"), _PRICE)
    expires: pl.Date = optional_column("When OpenRouter removes the model; NULL if no day is set.")


_BEFORE = "The list price of {} tokens on `as_of_before`."


class ModelPrices(Table):
    """One row per change of a model's list price: the new prices, and those of the catalogue before.

    >>> import orpipeline
    >>> orpipeline.ModelPrices.primary_key()
    ['as_of', 'model_id']
    """

    model_id: str = key_column("The model's id in the catalogue, with its variant.")
    permaslug: str = column("The id by which classifications name the model, without its variant.")
    name: str = column("The model's name.")
    prompt_price: float = optional_column(_LIST_PRICE.format("prompt"))
    completion_price: float = optional_column(_LIST_PRICE.format("completion"))
    as_of_before: pl.Date = column("The day of the catalogue before, usually the day before.")
    prompt_price_before: float = optional_column(_BEFORE.format("prompt"))
    completion_price_before: float = optional_column(_BEFORE.format("completion"))


VIEW_QUERIES = {
    "model_prices": """
        SELECT
            as_of,
            model_id,
            permaslug,
            name,
            prompt_price,
            completion_price,
            lag(as_of) OVER of_model AS as_of_before,
            lag(prompt_price) OVER of_model AS prompt_price_before,
            lag(completion_price) OVER of_model AS completion_price_before
        FROM models
        WINDOW of_model AS (PARTITION BY model_id ORDER BY as_of)
        QUALIFY as_of_before IS NOT NULL AND (
            prompt_price IS DISTINCT FROM prompt_price_before
            OR completion_price IS DISTINCT FROM completion_price_before
        )
    """,
    # A leaderboard names a model by its permaslug and variant. Of several catalogue entries, the one with the shortest
    # id counts. The catalogue is that of the day or, if the day has none, the newest one before.
    "named_leaderboard": """
        SELECT board.*, day.catalogue_as_of, name, open_weights, created, context_length, prompt_price, completion_price
        FROM model_leaderboard AS board
        ASOF LEFT JOIN (SELECT DISTINCT as_of AS catalogue_as_of FROM models) AS day
            ON board.as_of >= day.catalogue_as_of
        LEFT JOIN (
            SELECT *, permaslug || coalesce(':' || nullif(split_part(model_id, ':', 2), ''), '') AS listed_as
            FROM models
            QUALIFY row_number() OVER (PARTITION BY as_of, listed_as ORDER BY length(model_id), model_id) = 1
        ) AS entry ON entry.as_of = day.catalogue_as_of AND entry.listed_as = board.model_id
    """,
}
"""The queries of the views that read the catalogue, by name."""
