"""Prompts as chat messages. The tokenizer's own chat template turns them into text.

Modes: `none` (no user at all), `control` (a persona that must not matter), `explicit` (the group's
profile), `implicit` (only the group's earlier exchanges). Later turns add what peers answered.
"""

from collections.abc import Sequence

from envs.social_group import Group
from envs.types import ABSTAIN, UNPARSED, Message, PromptMode, Question, unit_hash

CONTROL_PERSONAS = (
    "Reader one.",
    "Reader two.",
    "Reader three.",
    "Reader four.",
    "Reader five.",
)

MAX_INLINE_CHARS = 80
"""Peers' answers up to this length stand in one line; longer ones are numbered."""
MAX_PEER_CHARS = 600
"""What is heard of a peer's answer, in characters."""


def variant_of(question_id: str, num_variants: int) -> int:
    """Which of `num_variants` paraphrases a question is asked under: a hash of its id alone, so
    that all groups hear the same number, and every run the same as the last."""
    return int(unit_hash("variant", question_id) * num_variants)


def opening_messages(
    question_text: str,
    mode: PromptMode,
    group: Group | None = None,
    control: int = 0,
    variant: int = 0,
) -> list[Message]:
    """What an agent sees at turn 0.

    Args: mode: `explicit` and `implicit` need `group`; `control` picks persona number `control`.
        variant: number of the paraphrase (see `variant_of`); one wording alone serves for all.
    """
    messages: list[Message] = []
    if mode == "control":
        messages.append(_message("system", CONTROL_PERSONAS[control % len(CONTROL_PERSONAS)]))
    elif mode == "explicit":
        assert group is not None
        profiles = group.profile_variants
        messages.append(_message("system", profiles[variant % len(profiles)]))
    elif mode == "implicit":
        assert group is not None
        histories = group.history_variants
        for exchange in histories[variant % len(histories)]:
            messages.append(_message("user", exchange.question))
            messages.append(_message("assistant", exchange.answer))
    messages.append(_message("user", question_text))
    return messages


def question_messages(question: Question, mode: PromptMode, group: Group) -> list[Message]:
    """What a group's agent sees of a question at turn 0, in the paraphrase that is the question's
    own."""
    variant = variant_of(question.id, group.num_variants)
    return opening_messages(question.text, mode, group, variant=variant)


def with_peers(
    messages: Sequence[Message], own_answer: str, peer_answers: Sequence[str]
) -> list[Message]:
    """The messages of the next turn: my utterance, then what my peers answered, if they did.

    Short answers stand in one line. Long ones are numbered, one a line, and cut at a word after
    MAX_PEER_CHARS characters; the message then says so.
    """
    said = [answer for answer in peer_answers if answer not in (ABSTAIN, UNPARSED)]
    return [*messages, _message("assistant", own_answer), _message("user", _heard(said))]


def plain_text(messages: Sequence[Message]) -> str:
    """Messages as `role: content` lines, where no chat template is at hand."""
    return "\n".join(f"{m['role']}: {m['content']}" for m in messages)


def _heard(answers: Sequence[str]) -> str:
    if not answers:
        return "Peers say: nothing."
    if all(_fits_inline(answer) for answer in answers):
        return f"Peers say: {'; '.join(answers)}."
    in_one_line = [" ".join(answer.split()) for answer in answers]
    clipped = [_clipped(answer) for answer in in_one_line]
    note = f" (cut after {MAX_PEER_CHARS} characters where it ends in [...])"
    lines = [f"{i}. {text}" for i, text in enumerate(clipped, start=1)]
    return "\n".join([f"Peers say{note if clipped != in_one_line else ''}:", *lines])


def _fits_inline(answer: str) -> bool:
    closed = not any(c in answer for c in ";\n") and not answer.endswith((".", "!", "?"))
    return closed and len(answer) <= MAX_INLINE_CHARS


def _clipped(answer: str) -> str:
    if len(answer) <= MAX_PEER_CHARS:
        return answer
    kept = answer[: MAX_PEER_CHARS + 1]
    return f"{(kept.rpartition(' ')[0] or kept[:MAX_PEER_CHARS]).rstrip()} [...]"


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
