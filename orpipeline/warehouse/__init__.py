"""The tables and views in DuckDB, and the I/O manager for your own assets."""
