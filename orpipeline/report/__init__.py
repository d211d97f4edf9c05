"""The day as a page and a picture, drawn with Vega-Lite. No network, no Dagster."""
