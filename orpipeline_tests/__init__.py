"""orpipeline's tests: real DuckDB, real HTTP on loopback, real Dagster instances."""
