"""Dagster's part: partitions, resources, assets, checks, jobs, schedules and sensors, each made from settings."""
