"""The raw archive: append-only storage for the API's answers. Knows nothing of Dagster."""
