"""A day's report: an HTML page and a picture, drawn with Vega-Lite. No network, no Dagster."""
