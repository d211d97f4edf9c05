from market.steady import steady
from market.weekly_authors import weekly_authors
from orpipeline.testing import LocalPipeline


def test_the_last_7_days(openrouter: LocalPipeline) -> None:
    openrouter.load("2026-10-01", "2026-10-06")
    assert not openrouter.materialize([steady], partition_key="2026-10-06", raise_on_error=False).success
    openrouter.load("2026-09-30")
    openrouter.materialize([steady], partition_key="2026-10-06")
    assert openrouter.read("market.steady")["days"].max() == 7


def test_a_week(openrouter: LocalPipeline) -> None:
    openrouter.load("2026-09-28", "2026-10-04")
    openrouter.materialize([weekly_authors], partition_key="2026-09-28")
    assert len(openrouter.read("market.weekly_authors")) > 5
