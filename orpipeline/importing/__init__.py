"""Importing responses that others archived. It does not depend on Dagster."""
