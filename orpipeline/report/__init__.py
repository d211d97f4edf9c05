"""A day's report: an HTML page and a picture, drawn as SVG. No network, no Dagster."""
