"""OpenRouter's `GET /classifications/task` over HTTP: the request, the request budget and the response. No Dagster."""
