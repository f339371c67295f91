"""A critic that looks at first turns alone still finds every score it needs."""

from tests.trialign_ray.runs import make_recipe, small_config


def test_first_turns_alone_can_be_solved_from_the_same_scores(tmp_path):
    config = small_config("critic.later_turns=false", "collect.episodes_per_question=2")
    recipe = make_recipe(tmp_path / "run", config, local=True)
    try:
        recipe.collect()
        recipe.score()
        recipe.solve()
        assert recipe.run_dir.solution_file.is_file()
    finally:
        recipe.close()
        recipe.progress.close()
