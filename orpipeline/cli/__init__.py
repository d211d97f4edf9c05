"""The command line: a module for each subject, one for runs of Dagster, and one for what a terminal shows.

Command modules import Dagster, polars and pandera inside the commands that need them, which keeps `--help` fast.
"""
