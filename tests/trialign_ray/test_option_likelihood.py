"""Multiple choice by likelihood: the likeliest option per token; letters where each is a token."""

import math
from dataclasses import replace

import pytest

from envs.groups import Group
from envs.judge import Judge
from envs.preferences import StyleRules, StyleScorer
from envs.prompts import plain_text
from envs.types import Message, Question
from tests.trialign_ray.tiny_models import save_random_qwen2
from trialign_ray.config_sections import EvaluateConfig
from trialign_ray.engines import CandidateScore, Generation
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.evaluate import answer_questions
from trialign_ray.language_model import chat_text, load_language_model
from trialign_ray.metrics import Protocol
from trialign_ray.option_likelihood import by_likelihood, choose_options, options_to_score

QUESTION = Question(
    "q",
    "Which is it? A) yes B) it certainly is not",
    gold=("it certainly is not",),
    choices=("yes", "it certainly is not"),
    verifier="multiple_choice",
)


def scorer(*scores):
    """Every prompt's candidates get these (log-probability, tokens)."""
    return lambda prompts, candidates: [[CandidateScore(*s) for s in scores] for _ in prompts]


def test_length_does_not_decide_between_options():
    """-4 over 2 tokens is -2 a token; -6 over 6 tokens is -1 a token, and wins."""
    (choice,) = choose_options(scorer((-4.0, 2), (-6.0, 6)), ["p"], [QUESTION])
    assert choice.option == "it certainly is not" and choice.index == 1
    assert choice.logprob_per_token == (-2.0, -1.0)
    assert choice.judged(QUESTION).truth == 1.0


def test_options_are_scored_as_the_question_wants_them_said():
    assert options_to_score([QUESTION], "likelihood") == [["A) yes", "B) it certainly is not"]]
    plain = replace(QUESTION, text="Which is it?")
    assert options_to_score([plain], "likelihood") == [["yes", "it certainly is not"]]
    assert options_to_score([QUESTION], "letter") == [["A", "B"]]


def test_of_equal_options_the_first_is_taken():
    (choice,) = choose_options(scorer((-4.0, 2), (-4.0, 2)), ["p"], [QUESTION])
    assert choice.index == 0 and choice.judged(QUESTION).truth == 0.0


def test_an_option_that_sounds_like_a_refusal_is_an_answer():
    question = replace(QUESTION, choices=("I have no comment", "yes"), gold=("I have no comment",))
    (choice,) = choose_options(scorer((-1.0, 2), (-4.0, 2)), ["p"], [question])
    assert choice.judged(question).truth == 1.0


def test_a_tokenizer_that_splits_letters_is_refused():
    with pytest.raises(ConfigError, match="splits option letter 'B' into 2 tokens"):
        choose_options(scorer((-1.0, 2), (-2.0, 3)), ["p"], [QUESTION], "letter")


def test_a_tokenizer_that_does_not_know_letters_is_refused():
    with pytest.raises(ConfigError, match="the same token"):
        choose_options(scorer((-1.0, 2), (-1.0, 2)), ["p"], [QUESTION], "letter")


def test_more_options_than_letters_are_refused():
    many = replace(QUESTION, choices=tuple(map(str, range(27))))
    with pytest.raises(DataError, match="27 options"):
        choose_options(scorer(), ["p"], [many], "letter")


def test_only_questions_with_options_are_answered_so():
    assert by_likelihood(QUESTION)
    assert not by_likelihood(replace(QUESTION, verifier="exact"))


def test_the_shipped_model_finds_the_true_option_likeliest(shipped_lm):
    options = ("Oslo", "Paris", "Lima", "Rome")
    question = Question("c", "What is the capital of France?", gold=("Paris",), choices=options,
                        verifier="multiple_choice")  # fmt: skip
    engine = TransformersEngine(shipped_lm.model, shipped_lm.tokenizer)
    messages: list[Message] = [{"role": "user", "content": question.text}]
    said = engine.generate([chat_text(shipped_lm.tokenizer, messages)], _greedy())[0].text
    worded = replace(question, choices=tuple(said.replace("Paris", o) for o in options),
                     gold=(said,))  # fmt: skip
    prompts = [chat_text(shipped_lm.tokenizer, messages)]
    (choice,) = choose_options(engine.score, prompts, [worded])
    assert "Paris" in said and choice.option == said


def _greedy():
    from trialign_ray.engines import Decoding

    return Decoding(0.0, 24, 4)


def test_letters_are_scored_where_each_is_one_token(tmp_path):
    model = load_language_model(save_random_qwen2(tmp_path / "model"))
    engine = TransformersEngine(model.model, model.tokenizer)
    (choice,) = choose_options(engine.score, ["Which? A) yes B) no\n"], [QUESTION], "letter")
    assert choice.option == QUESTION.choices[choice.index]
    assert all(math.isfinite(x) for x in choice.logprob_per_token)


class TwoGroupsOfWorkers:
    """Says "Hi! It is yes." to everyone; finds the true option likeliest for kind alone."""

    groups: tuple[str, ...] = ("kind", "curt")

    def on_groups(self, verb, arguments):
        if verb == "generate":
            one = Generation("Hi! It is yes.", (), 0.0, False)
            return {g: [one] * len(args[1]) for g, args in arguments.items()}
        best = {"kind": ((-9.0, 2), (-1.0, 2)), "curt": ((-1.0, 2), (-9.0, 2))}
        return {g: scorer(*best[g])(*args[1:]) for g, args in arguments.items()}

    def on_critic(self, verb, *arguments):
        raise AssertionError("evaluation asks the groups' agents alone")

    def close(self):
        pass


@pytest.mark.parametrize(("how", "truth"), [("generate", [0.0, 0.0]), ("likelihood", [1.0, 0.0])])
def test_evaluation_judges_truth_by_likelihood_and_style_by_what_is_said(how, truth):
    style = StyleRules(greeting="Hi!")
    groups = [Group(name=n, profile="P.", style=style) for n in TwoGroupsOfWorkers.groups]
    protocol = Protocol(
        questions=[QUESTION],
        groups=groups,
        judge=Judge(StyleScorer({g.name: style for g in groups})),
        render=plain_text,
        config=EvaluateConfig(multiple_choice=how),
        max_new_tokens=8,
        batch_size=2,
        seed=0,
    )
    answers = answer_questions(protocol, TwoGroupsOfWorkers(), "behaviour", "explicit")
    assert [answers.judged[g.name][0].truth for g in groups] == truth
    assert answers.judged["kind"][0].personalization == 1.0
    assert answers.texts["kind"] == ["Hi! It is yes."]


def test_a_question_is_asked_under_the_paraphrase_of_its_id():
    told = ("One way to say it.", "Another way to say it.", "A third way to say it.")
    group = Group(name="kind", profiles=told)
    questions = [Question(f"q{i}", "Yes?", gold=("yes",)) for i in range(30)]
    seen = {}

    class Recorder(TwoGroupsOfWorkers):
        def on_groups(self, verb, arguments):
            seen.update({g: args[1] for g, args in arguments.items()})
            return {g: [Generation("yes", (), 0.0, False)] * 30 for g in arguments}

    protocol = Protocol(questions, [group], Judge(StyleScorer({"kind": StyleRules()})), plain_text,
                        EvaluateConfig(), 8, 2, 0)  # fmt: skip
    answer_questions(protocol, Recorder(), "behaviour", "explicit")
    counts = [sum(way in prompt for prompt in seen["kind"]) for way in told]
    assert sum(counts) == 30 and min(counts) > 3
