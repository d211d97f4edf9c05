"""The tables in DuckDB: one place that opens the database, and the I/O manager for assets of one's own."""
