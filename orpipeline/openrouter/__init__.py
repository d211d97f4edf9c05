"""OpenRouter's `GET /classifications/task` over HTTP: asking it, and reading its answer. Knows no Dagster."""
