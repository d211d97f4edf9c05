"""orpipeline."""
