"""The engines that can keep the tables: a DuckDB file, a DuckLake, or MotherDuck."""
