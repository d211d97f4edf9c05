"""The analysts' code location."""
