"""The tables and views in DuckDB or DuckLake, what readers get of them, and the I/O manager for your own assets."""
