"""Dagster's part: partitions, resources, assets, checks, jobs, schedules. Thin: get, call, put, say."""
