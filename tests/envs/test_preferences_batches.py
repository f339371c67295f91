"""Slow scorers are told beforehand what will be asked; the scores stay as they are."""

import pytest

from envs.judge import Judge
from envs.preferences import StyleRules, StyleScorer, WeightedScorer, prepare
from envs.types import Question

QUESTION = Question(
    "q",
    "What is the capital of Italy?",
    gold=("Rome",),
    choices=("Rome", "Paris"),
    verifier="closed_vocabulary",
)


class LengthScorer:
    """Scores by length, works in batches and counts them."""

    def __init__(self):
        self.batches: list[list[tuple[str, str, str, str]]] = []
        self.known: dict[str, float] = {}

    def prepare(self, items):
        self.batches.append([(g, q.id, text, answer) for g, q, text, answer in items])
        self.known |= {text: len(text) / 100 for _, _, text, _ in items}

    def score(self, group, question, text, answer):
        return self.known.get(text, len(text) / 100)


def test_the_judge_hands_on_groups_questions_texts_and_parsed_answers():
    scorer = LengthScorer()
    judge = Judge(scorer)
    judge.prepare([("g", QUESTION, "It is Rome."), ("h", QUESTION, "Hm.")])
    assert scorer.batches == [[("g", "q", "It is Rome.", "Rome"), ("h", "q", "Hm.", "unparsed")]]


@pytest.mark.parametrize("text", ["It is Rome.", "Paris", "Rome or Paris"])
def test_judgements_are_the_same_with_and_without_prepare(text):
    told = Judge(LengthScorer())
    told.prepare([("g", QUESTION, text), ("g", QUESTION, "other")])
    assert told("g", QUESTION, text) == Judge(LengthScorer())("g", QUESTION, text)


def test_a_weighted_scorer_tells_those_that_work_in_batches():
    slow = LengthScorer()
    rules = StyleScorer({"g": StyleRules(max_words=3)})
    mixed = WeightedScorer([(1.0, rules), (3.0, slow), (0.0, LengthScorer())])
    prepare(mixed, [("g", QUESTION, "Rome.", "Rome")])
    assert len(slow.batches) == 1
    # rules are kept: (1 * 1 + 3 * 0.05) / 4
    assert mixed.score("g", QUESTION, "Rome.", "Rome") == pytest.approx(1.15 / 4)


def test_nothing_to_ask_is_no_batch():
    scorer = LengthScorer()
    Judge(scorer).prepare([])
    prepare(StyleScorer({}), [("g", QUESTION, "x", "x")])
    assert scorer.batches == []
