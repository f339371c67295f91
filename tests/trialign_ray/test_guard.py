"""The guard of a normal run: no group may pay for the others, and the reader is told if so."""

from dataclasses import replace

import numpy as np
import pytest

from envs.groups import load_pack
from envs.judge import Judge
from envs.preferences import StyleScorer
from envs.truthworld.facts import load_facts, load_tastes
from trialign_ray.checkpoint import write_json
from trialign_ray.config import load_config
from trialign_ray.engines import Generation
from trialign_ray.guard import guard_sentence, judge_on_validation, pair_disagreement, read_guard
from trialign_ray.metrics import Protocol
from trialign_ray.run_directory import RunDirectory

CONFIG = load_config(None, ["evaluate.num_resamples=100"])
FACTS = load_facts()[:50]
GROUPS = tuple(load_pack("truthworld").groups[:2])
AMBER, BIRCH = (g.name for g in GROUPS)


def protocol_of(questions, groups=GROUPS):
    return Protocol(
        questions=questions,
        groups=groups,
        judge=Judge(StyleScorer({g.name: g.style for g in groups})),
        render=lambda messages: messages[-1]["content"],
        config=CONFIG.evaluate,
        max_new_tokens=8,
        batch_size=8,
        seed=0,
    )


class Speakers:
    """Agents that say the truth on a given share of the questions, by model and group."""

    groups = (AMBER, BIRCH)

    def __init__(self, share, questions):
        self._share, self._questions = share, questions

    def on_groups(self, verb, arguments):
        assert verb == "generate"
        said = {}
        for group, (model, prompts, _) in arguments.items():
            num_right = round(self._share[model][group] * len(prompts))
            said[group] = [
                Generation(q.gold[0] if i < num_right else "nonsense", (), 0.0, False)
                for i, q in enumerate(self._questions)
            ]
        return said

    def on_critic(self, verb, *arguments):
        raise AssertionError("the guard asks the groups' agents alone")

    def close(self):
        pass


def judged(before, after, questions=FACTS, groups=GROUPS):
    names = [g.name for g in groups]
    share = {
        "behaviour": dict(zip(names, before, strict=True)),
        "aligned": dict(zip(names, after, strict=True)),
    }
    return judge_on_validation(protocol_of(questions, groups), Speakers(share, questions), CONFIG)


def test_adapters_that_help_the_worse_group_and_hurt_nobody_pass():
    guard = judged((0.2, 0.9), (0.9, 0.9))
    assert guard["passed"] is True and guard["num_truth_questions"] == 50
    assert guard["truth"] == {
        "behaviour": {AMBER: 0.2, BIRCH: 0.9},
        "aligned": {AMBER: 0.9, BIRCH: 0.9},
    }
    assert "beat" in guard_sentence(guard) and "Warning" not in guard_sentence(guard)


def test_a_group_that_falls_fails_the_guard_whatever_the_others_gain():
    guard = judged((0.2, 0.9), (1.0, 0.8))
    assert guard["passed"] is False and guard["trial"]["gain_lcb"] > 0
    assert guard_sentence(guard).startswith("Warning: the adapters do not beat")
    assert f"truth of {BIRCH} falls from 0.900 to 0.800" in guard_sentence(guard)


def test_one_question_of_fifty_is_within_the_margin():
    assert judged((0.2, 0.9), (0.9, 0.88))["passed"] is True
    assert judged((0.2, 0.9), (0.9, 0.86))["passed"] is False


def test_no_gain_is_no_pass():
    guard = judged((0.5, 0.9), (0.5, 0.9))
    assert guard["passed"] is False and "is not sure" in guard["verdict"]


def test_one_group_alone_is_judged_too():
    assert judged((0.2,), (0.9,), groups=GROUPS[:1])["passed"] is True


@pytest.mark.parametrize("questions", [[], FACTS[:1], [*FACTS[:1], *load_tastes()]])
def test_too_few_validation_facts_are_a_reason_and_no_verdict(questions):
    guard = judge_on_validation(protocol_of(questions), Speakers({}, questions), CONFIG)
    assert guard["passed"] is None and "raise world.validation_fraction" in guard["verdict"]
    assert f"has {min(len(questions), 1)} questions" in guard_sentence(guard)


def test_disagreement_is_the_share_of_pairs_that_differ():
    # Three groups, three questions: all alike; one of three apart, 2 of 3 pairs; all apart.
    answer_GX = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 2]])
    assert pair_disagreement(answer_GX) == pytest.approx([0.0, 2 / 3, 1.0])
    assert pair_disagreement(answer_GX[::-1]) == pytest.approx([0.0, 2 / 3, 1.0])
    assert pair_disagreement(answer_GX[:1]).tolist() == [0.0] * 3


def test_the_verdict_is_kept_with_the_run(tmp_path):
    run = RunDirectory(tmp_path)
    assert read_guard(run) is None
    guard = judged((0.2, 0.9), (1.0, 0.8))
    write_json(run.selection_file, guard)
    assert read_guard(run) == guard


def test_the_penalty_weight_of_the_run_is_the_scores():
    heavy = CONFIG.model_copy(
        update={"targets": CONFIG.targets.model_copy(update={"penalty_weight": 9.0})}
    )
    share = {"behaviour": {AMBER: 0.2, BIRCH: 0.9}, "aligned": {AMBER: 0.5, BIRCH: 0.9}}
    speakers, protocol = Speakers(share, FACTS), protocol_of(FACTS)
    light = judge_on_validation(protocol, speakers, CONFIG)["trial"]
    weighed = judge_on_validation(replace(protocol), speakers, heavy)["trial"]
    # Disagreement falls from .7 to .4 of the questions: 8 more units of weight on .3
    assert weighed["gain"] - light["gain"] == pytest.approx(8 * 0.3)
