"""Assets on top of orpipeline."""
