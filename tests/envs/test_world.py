"""AlignmentWorld keeps RLlib's contract and the order of the dialogue."""

import logging
import warnings

import pytest
from ray.rllib.utils.pre_checks.env import check_multiagent_environments

from envs.errors import ConfigError
from envs.groups import load_pack
from envs.judge import Judge
from envs.preferences import StyleScorer
from envs.prompts import variant_of
from envs.truthworld.facts import load_facts
from envs.truthworld.styles import styled_answer
from envs.types import Question, reveal_gold
from envs.world import MAX_UTTERANCE_CHARS, AlignmentWorld, WorldSpec

QUESTIONS = load_facts()[:5]
GROUPS = load_pack("truthworld").groups[:3]


def spec(questions=QUESTIONS, groups=GROUPS, **options):
    judge = Judge(StyleScorer({g.name: g.style for g in groups}))
    return WorldSpec(questions, groups, judge, **options)


@pytest.mark.parametrize("num_groups", [1, 2, 12])
def test_rllibs_own_check_passes(num_groups, caplog):
    world = AlignmentWorld(spec(groups=load_pack("truthworld").groups[:num_groups]))
    # The check returns early, with a warning, for an environment that lacks these.
    assert hasattr(world, "_agent_ids") and hasattr(world, "observation_space")
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        check_multiagent_environments(world)
    assert not caplog.records


def test_observations_and_actions_lie_in_their_spaces():
    world = AlignmentWorld(spec())
    observations, _ = world.reset(seed=1)
    for group, text in observations.items():
        assert world.get_observation_space(group).contains(text)
    action = world.get_action_space("amber").sample()
    assert world.get_action_space("amber").contains(action)


def test_peers_are_heard_from_the_second_turn_on():
    world = AlignmentWorld(spec(turns=3))
    observations, infos = world.reset(options={"question": 0})
    assert all("Peers" not in text for text in observations.values())
    question = QUESTIONS[0]
    names = [g.name for g in GROUPS]
    answers = dict(zip(names, question.choices, strict=False))
    said = {g.name: styled_answer(question, answers[g.name], g.style) for g in GROUPS}
    observations, _, terminated, truncated, infos = world.step(said)
    assert infos["amber"]["visible_peers"] == []
    assert f"Peers say: {answers['birch']}; {answers['cedar']}." in observations["amber"]
    assert answers["amber"] in observations["amber"], "an agent remembers what it said"
    assert not terminated["__all__"] and not truncated["__all__"]
    *_, infos = world.step(said)
    assert infos["amber"]["visible_peers"] == [answers["birch"], answers["cedar"]]


def test_the_last_turn_terminates_and_does_not_truncate():
    world = AlignmentWorld(spec(turns=1))
    world.reset(seed=0)
    _, _, terminated, truncated, _ = world.step({g.name: "x" for g in GROUPS})
    assert terminated["__all__"] and not truncated["__all__"]


def test_rewards_are_truth_and_style_and_hidden_gold_pays_nothing():
    group, question = GROUPS[0], QUESTIONS[0]
    text = styled_answer(question, question.gold[0], group.style)
    for fraction, reward in ((1.0, 2.0), (0.0, 1.0)):
        world = AlignmentWorld(spec(reveal_gold(QUESTIONS, fraction, 0), turns=1))
        world.reset(options={"question": 0})
        _, rewards, _, _, infos = world.step({group.name: text})
        assert rewards[group.name] == pytest.approx(reward)
        assert infos[group.name]["judgement"].truth == (1.0 if fraction else None)


def test_a_seed_fixes_the_question():
    first, second = AlignmentWorld(spec()), AlignmentWorld(spec())
    for seed in range(5):
        assert first.reset(seed=seed)[0] == second.reset(seed=seed)[0]


def test_worlds_without_questions_groups_or_turns_are_refused():
    for broken in ({"questions": []}, {"groups": []}, {"turns": 0}):
        with pytest.raises(ConfigError):
            spec(**broken)


def test_a_prompt_that_is_too_long_is_an_error_and_is_not_cut():
    with pytest.raises(ConfigError, match="use fewer turns"):
        AlignmentWorld(spec(max_text_chars=10)).reset(seed=0)


@pytest.mark.parametrize("mode", ["explicit", "implicit"])
def test_all_groups_hear_the_same_wording_and_questions_use_all_of_them(mode):
    groups = load_pack("underperformance").groups
    questions = [Question(f"q{i}", f"Why {i}?", gold=("x",)) for i in range(20)]
    world, used = AlignmentWorld(spec(questions, groups, mode=mode)), set()
    for index, question in enumerate(questions):
        observations, _ = world.reset(options={"question": index})
        variant = variant_of(question.id, 3)
        used.add(variant)
        for group in groups:
            history = group.histories[variant]
            shown = group.profiles[variant] if mode == "explicit" else history[0].question
            assert shown in observations[group.name]
    assert used == {0, 1, 2}


def test_rllibs_own_check_passes_on_a_pack_of_real_text(caplog):
    groups = load_pack("personas").groups
    with caplog.at_level(logging.WARNING):
        check_multiagent_environments(AlignmentWorld(spec(groups=groups, turns=3, mode="implicit")))
    assert not caplog.records


def test_real_prompts_have_room_whatever_characters_a_model_writes():
    question = Question("q", "A long question. " * 3000, gold=("x",))
    world = AlignmentWorld(spec([question], turns=2))
    world.reset(seed=0)
    said = "文🙂" * (MAX_UTTERANCE_CHARS // 2)
    assert world.get_action_space("amber").contains(said)
    for _ in range(2):
        observations, *_ = world.step({g.name: said for g in GROUPS})
        space = world.get_observation_space("amber")
        assert all(space.contains(text) for text in observations.values())
    assert not world.get_action_space("amber").contains(said + "x")
