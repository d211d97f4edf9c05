"""One day without an orchestrator: fetch the response, store it, load it into DuckDB. No checks, history or retries.

ORPIPELINE_BASE_URL=<url> OPENROUTER_API_KEY=<key> python bare.py <folder>
"""

import json
import os
import sys
from pathlib import Path

import duckdb
import httpx

TABLES = """
CREATE TABLE IF NOT EXISTS task_classifications (
    as_of DATE, tag VARCHAR, display_name VARCHAR, macro_category VARCHAR, usage_share DOUBLE, token_share DOUBLE,
    category_usage_share DOUBLE, category_token_share DOUBLE);
CREATE TABLE IF NOT EXISTS macro_categories (
    as_of DATE, key VARCHAR, label VARCHAR, usage_share DOUBLE, token_share DOUBLE);
CREATE TABLE IF NOT EXISTS task_models (
    as_of DATE, tag VARCHAR, model_id VARCHAR, tag_usage_share DOUBLE, tag_token_share DOUBLE);
CREATE TABLE IF NOT EXISTS model_leaderboard (
    as_of DATE, scope VARCHAR, model_id VARCHAR, usage_share DOUBLE);
CREATE TABLE IF NOT EXISTS author_leaderboard (as_of DATE, scope VARCHAR, author VARCHAR, usage_share DOUBLE);
CREATE TABLE IF NOT EXISTS leaderboard_coverage (as_of DATE, scope VARCHAR, usage_attributed DOUBLE);
"""
LEADERBOARD = """
INSERT INTO model_leaderboard
SELECT as_of, coalesce(macro_category, 'all'), model_id, sum(usage_share * tag_usage_share)
FROM task_models JOIN task_classifications USING (as_of, tag) WHERE as_of = ?
GROUP BY GROUPING SETS ((as_of, model_id), (as_of, macro_category, model_id))
"""
AUTHORS = """
INSERT INTO author_leaderboard
SELECT as_of, scope, split_part(model_id, '/', 1), sum(usage_share) FROM model_leaderboard WHERE as_of = ? GROUP BY ALL
"""
COVERAGE = """
INSERT INTO leaderboard_coverage
SELECT as_of, scope, sum(usage_share) FROM model_leaderboard WHERE as_of = ? GROUP BY ALL
"""


def main(folder: Path) -> None:
    """Fetch the newest day, and replace its rows."""
    response = httpx.get(
        f"{os.environ['ORPIPELINE_BASE_URL']}/classifications/task",
        params={"window": "7d"},
        headers={"Authorization": f"Bearer {os.environ['OPENROUTER_API_KEY']}"},
        timeout=30,
    )
    response.raise_for_status()
    data = json.loads(response.content)["data"]
    day = data["as_of"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{day}.json").write_bytes(response.content)

    tasks = [[day, *(v for k, v in task.items() if k != "models")] for task in data["classifications"]]
    models = [[day, task["tag"], *model.values()] for task in data["classifications"] for model in task["models"]]
    macros = [[day, *macro.values()] for macro in data["macro_categories"]]
    with duckdb.connect(folder / "warehouse.duckdb") as connection:
        connection.execute(TABLES)
        connection.begin()
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            connection.execute(f"DELETE FROM {table} WHERE as_of = ?", [day])
        connection.executemany("INSERT INTO task_classifications VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tasks)
        connection.executemany("INSERT INTO macro_categories VALUES (?, ?, ?, ?, ?)", macros)
        connection.executemany("INSERT INTO task_models VALUES (?, ?, ?, ?, ?)", models)
        for statement in (LEADERBOARD, AUTHORS, COVERAGE):
            connection.execute(statement, [day])
        connection.commit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
