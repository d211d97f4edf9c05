"""The contracts: a response as frames, the tables as pandera models, and the rules for both. No Dagster."""
