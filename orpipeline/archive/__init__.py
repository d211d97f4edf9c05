"""The raw archive: append-only storage for the API's answers. It does not depend on Dagster."""
