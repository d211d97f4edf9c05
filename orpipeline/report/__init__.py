"""The day as a page and a picture, drawn with Vega-Lite. Pure: no network, no clock, no Dagster."""
