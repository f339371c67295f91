"""One judge for every utterance: the verifier reads and checks it, the scorer rates it."""

from collections.abc import Sequence

from envs.preferences import PreferenceScorer, prepare
from envs.types import Judgement, Question
from envs.verifiers import parse_answer, truth_of


class Judge:
    """Judges utterances at once, so that no log ever waits for its rewards."""

    def __init__(self, scorer: PreferenceScorer):
        self._scorer = scorer
        self._parsed: dict[tuple[str, str], str] = {}

    def __call__(self, group: str, question: Question, text: str) -> Judgement:
        answer = self._parsed.get((question.id, text))
        if answer is None:
            answer = parse_answer(text, question)
        return Judgement(
            parsed_answer=answer,
            truth=truth_of(answer, question),
            personalization=self._scorer.score(group, question, text, answer),
        )

    def prepare(self, items: Sequence[tuple[str, Question, str]]) -> None:
        """Tells a scorer that works in batches which (group, question, text) will be judged.

        What is read here is not read again, until the next call.
        """
        self._parsed = {}
        for _, question, text in items:
            if (question.id, text) not in self._parsed:
                self._parsed[question.id, text] = parse_answer(text, question)
        prepare(self._scorer, [(g, q, t, self._parsed[q.id, t]) for g, q, t in items])
