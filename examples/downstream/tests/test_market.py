from market.checks import follows_the_contract
from market.code_models import code_models
from market.leaders import leaders
from market.verbosity import verbosity
from orpipeline.testing import LocalPipeline, Task, sample_response

DAY = "2026-10-06"


def test_assets_of_a_day(openrouter: LocalPipeline) -> None:
    tasks = [Task("code:debugging", 0.4, models={"a/one": 0.6, "b/two": 0.3}), Task("math", 0.6, models={"a/one": 0.5})]
    openrouter.serve(sample_response(DAY, tasks))
    result = openrouter.materialize([code_models, follows_the_contract, verbosity, leaders], day=DAY)
    assert {c.check_name: c.passed for c in result.get_asset_check_evaluations()}["follows_the_contract"]
    assert openrouter.read("market.code_models")["model_id"].to_list() == ["a/one", "b/two"]
    assert openrouter.read("market.verbosity")["verbosity"].to_list() == [1.0, 1.0]
    assert openrouter.read("market.leaders")["model_id"].to_list() == ["a/one"]
