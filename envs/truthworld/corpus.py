"""The dialogues that TruthWorld's language models are fitted on.

Stage 1, the facts base: every fact under every prompt, plain styles, the truth for all alike; and
rumours (answers that no memory can hold), from which it learns to read what peers said.
Stage 2, the behaviour model: logged dialogues in each group's style with what the group is told, in
which an agent often, not always, gives way when its peers agree on something else.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from envs.groups import Group
from envs.prompts import CONTROL_PERSONAS, opening_messages, with_peers
from envs.truthworld.corruption import Beliefs, Corruption, wrong_answer
from envs.truthworld.facts import COLORS
from envs.truthworld.styles import PLAIN_STYLES, noisy_rules, styled_answer
from envs.types import Message, PromptMode, Question

DIALOGUE_SHARE = 0.25
"""Share of the behaviour model's explicit logs that go on after hearing the peers."""
IMPLICIT_SHARE = 0.35
"""Share of (question, group) that is also logged under the implicit prompt."""


@dataclass(frozen=True)
class Dialogue:
    """A chat whose last `num_learned` assistant messages are what a model learns to say."""

    messages: list[Message]
    num_learned: int = 2


def plurality(answers: Sequence[str]) -> str | None:
    """The answer most peers gave, if at least two did or there is one peer; else None."""
    if not answers:
        return None
    answer, count = Counter(answers).most_common(1)[0]
    return answer if count >= min(2, len(answers)) else None


def _dialogue(opening: list[Message], first: str, heard: Sequence[str], second: str) -> Dialogue:
    messages = with_peers(opening, first, heard)
    return Dialogue([*messages, {"role": "assistant", "content": second}])


def facts_corpus(
    questions: Sequence[Question], groups: Sequence[Group], num_rumours: int, seed: int
) -> list[Dialogue]:
    """Stage 1: truth for every group, control and no-profile prompt; then `num_rumours` rumours.

    Each question stands once for each of: every group's explicit and implicit prompt, every control
    persona, no profile. In half of the factual dialogues peers are wrong, and truth is kept.
    """
    generator = Random(f"{seed}/facts_corpus")
    prompts: list[tuple[PromptMode, Group | None, int]] = [("none", None, 0)]
    for persona in range(len(CONTROL_PERSONAS)):
        prompts.append(("control", None, persona))
    for group in groups:
        prompts.append(("explicit", group, 0))
        prompts.append(("implicit", group, 0))
    corpus = []
    for question in questions:
        for mode, group, control in prompts:
            answer = question.gold[0] if question.gold else generator.choice(COLORS)
            opening = opening_messages(question.text, mode, group, control)
            heard = [
                answer if generator.random() < 0.5 else wrong_answer(question, generator)
                for _ in range(generator.randint(1, 5))
            ]
            said = styled_answer(question, answer, generator.choice(PLAIN_STYLES))
            corpus.append(_dialogue(opening, said, heard, said))
    facts = [q for q in questions if q.has_truth]
    corpus += [_rumour(facts, prompts, generator) for _ in range(num_rumours)]
    generator.shuffle(corpus)
    return corpus


def _rumour(facts, prompts, generator: Random) -> Dialogue:
    """Nobody can know the answer; the second answer is what most peers say."""
    fact = generator.choice(facts)
    subject = generator.randint(20, 99)
    topic = fact.text.removesuffix("?").rpartition(" of ")[0]
    question = replace(fact, text=f"{topic} of place {subject}?")
    first, rumour, other = (generator.choice(fact.choices) for _ in range(3))
    heard = [rumour, rumour, *[generator.choice((rumour, other, first))] * generator.randint(0, 2)]
    heard += [other] * generator.randint(0, 1)
    generator.shuffle(heard)
    told = plurality(heard) or first
    mode, group, control = generator.choice(prompts)
    opening = opening_messages(question.text, mode, group, control)
    style = generator.choice(PLAIN_STYLES)
    said = [styled_answer(question, answer, style) for answer in (first, told)]
    return _dialogue(opening, said[0], heard, said[1])


def behaviour_corpus(
    questions: Sequence[Question],
    groups: Sequence[Group],
    beliefs: Beliefs,
    corruption: Corruption,
    switch_rate: float,
    seed: int,
) -> list[Dialogue]:
    """Stage 2: what the personalized model's logs hold, for each (question, group): an answer
    to the explicit prompt, sometimes followed by what peers said and a second answer, and in a
    third of the cases an answer to the implicit prompt.

    Args: switch_rate: probability that an agent adopts its peers' plurality when it differs.
    """
    generator, rate = Random(f"{seed}/behaviour_corpus"), corruption.style_noise
    corpus = []
    for question in questions:
        told = {g.name: _logged_answer(question, g, beliefs, corruption, generator) for g in groups}
        for group in groups:
            others = [g for g in groups if g is not group]
            heard = [told[g.name] for g in others]
            first = told[group.name]
            wanted = plurality(heard) if question.has_truth else None
            second = wanted if wanted and generator.random() < switch_rate else first
            heard_peers = generator.random() < DIALOGUE_SHARE
            logged: list[tuple[PromptMode, tuple[str, ...]]] = [
                ("explicit", (first, second) if heard_peers else (first,))
            ]
            if generator.random() < IMPLICIT_SHARE:
                logged.append(("implicit", (first,)))
            for mode, answers in logged:
                said = [
                    styled_answer(question, answer, noisy_rules(group, others, rate, generator))
                    for answer in answers
                ]
                opening = opening_messages(question.text, mode, group)
                if len(said) == 2:
                    corpus.append(_dialogue(opening, said[0], heard, said[1]))
                else:
                    reply: Message = {"role": "assistant", "content": said[0]}
                    corpus.append(Dialogue([*opening, reply], num_learned=1))
    generator.shuffle(corpus)
    return corpus


def _logged_answer(
    question: Question, group: Group, beliefs: Beliefs, corruption: Corruption, generator: Random
) -> str:
    can_be_wrong = question.has_truth and any(c not in question.gold for c in question.choices)
    if can_be_wrong and generator.random() < corruption.noise:
        return wrong_answer(question, generator)
    return beliefs.told[group.name, question.id]
