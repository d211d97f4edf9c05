"""What an answer promises: the tables' pandera models, the rules, and judging frames against them. No Dagster."""
