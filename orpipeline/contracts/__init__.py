"""The contracts: pandera models of the tables, the rules for an answer, and validation. No Dagster."""
