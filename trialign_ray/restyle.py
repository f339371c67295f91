"""Two cheap and strong ways to equal facts without any training: answer once for all, then restyle.

Both cost more calls per question than an adapter does, at every answer that is ever given.
"""

from collections import Counter
from collections.abc import Sequence

from envs.types import Judgement, PromptMode
from trialign_ray.actors.workers import Workers
from trialign_ray.candidates import NO_ANSWERS, restate
from trialign_ray.evaluate import answer_questions
from trialign_ray.letter_answers import shown_options
from trialign_ray.metrics import Answers, Protocol


def neutral_restyled(
    protocol: Protocol,
    workers: Workers,
    model: str,
    mode: PromptMode,
    answering: str | None = None,
) -> Answers:
    """What `answering` (`model` itself if None) tells a user without a profile, put into the words
    in which `model` speaks to each group: 2 calls."""
    own = answer_questions(protocol, workers, model, mode)
    neutral = answer_questions(protocol, workers, answering or model, "none")
    said = [j.parsed_answer for j in next(iter(neutral.judged.values()))]
    return restyled(protocol, own, said)


def majority_restyled(
    protocol: Protocol, workers: Workers, model: str, mode: PromptMode
) -> Answers:
    """The commonest of the groups' answers, put into each group's own words: G + 1 calls.

    A tie goes to the answer of the group that comes first.
    """
    own = answer_questions(protocol, workers, model, mode)
    rows = zip(*own.judged.values(), strict=True)
    return restyled(protocol, own, [_plurality(row) for row in rows])


def _plurality(judged: Sequence[Judgement]) -> str:
    counts = Counter(j.parsed_answer for j in judged if j.parsed_answer not in NO_ANSWERS)
    return counts.most_common(1)[0][0] if counts else NO_ANSWERS[0]


def restyled(protocol: Protocol, own: Answers, answers: Sequence[str]) -> Answers:
    """`own` with `answers` in the place of each group's own answer to a question of truth.

    A matter of taste stays the group's own; so does an answer that was never given or understood.
    """
    texts = {
        group: [
            restate(text, judged.parsed_answer, answer, shown_options(question.text))
            if question.has_truth and answer not in NO_ANSWERS
            else text
            for question, text, judged, answer in zip(
                protocol.questions, own.texts[group], own.judged[group], answers, strict=True
            )
        ]
        for group in own.texts
    }
    judged = {
        group: [
            protocol.judge(group, question, text)
            for question, text in zip(protocol.questions, own, strict=True)
        ]
        for group, own in texts.items()
    }
    return Answers(texts, judged)
