pytest_plugins = ["orpipeline.testing.plugin"]
