from dbt.cli.main import dbtRunner

from orpipeline.testing import LocalPipeline


def test_models_and_their_tests(openrouter: LocalPipeline) -> None:
    openrouter.load("2026-10-01", "2026-10-06")
    assert dbtRunner().invoke(["build", "--project-dir", "dbt", "--profiles-dir", "dbt"]).success
