"""One judge for every utterance: the verifier reads and checks it, the scorer rates it."""

from envs.preferences import PreferenceScorer
from envs.types import Judgement, Question
from envs.verifiers import parse_answer, truth_of


class Judge:
    """Judges utterances at once, so that no log ever waits for its rewards."""

    def __init__(self, scorer: PreferenceScorer):
        self._scorer = scorer

    def __call__(self, group: str, question: Question, text: str) -> Judgement:
        answer = parse_answer(text, question)
        return Judgement(
            parsed_answer=answer,
            truth=truth_of(answer, question),
            personalization=self._scorer.score(group, question, text, answer),
        )
