"""Prompts as chat messages. The tokenizer's own chat template turns them into text.

Modes: `none` (no user at all), `control` (a persona that must not matter), `explicit` (the group's
profile), `implicit` (only the group's earlier exchanges). Later turns add what peers answered.
"""

from collections.abc import Sequence

from envs.groups import Group
from envs.types import ABSTAIN, UNPARSED, Message, PromptMode

CONTROL_PERSONAS = (
    "Reader one.",
    "Reader two.",
    "Reader three.",
    "Reader four.",
    "Reader five.",
)


def opening_messages(
    question_text: str, mode: PromptMode, group: Group | None = None, control: int = 0
) -> list[Message]:
    """What an agent sees at turn 0.

    Args: mode: `explicit` and `implicit` need `group`; `control` picks persona number `control`.
    """
    messages: list[Message] = []
    if mode == "control":
        messages.append(_message("system", CONTROL_PERSONAS[control % len(CONTROL_PERSONAS)]))
    elif mode == "explicit":
        assert group is not None
        messages.append(_message("system", group.profile))
    elif mode == "implicit":
        assert group is not None
        for exchange in group.history:
            messages.append(_message("user", exchange.question))
            messages.append(_message("assistant", exchange.answer))
    messages.append(_message("user", question_text))
    return messages


def with_peers(
    messages: Sequence[Message], own_answer: str, peer_answers: Sequence[str]
) -> list[Message]:
    """The messages of the next turn: my utterance, then what my peers answered, if they did."""
    said = [answer for answer in peer_answers if answer not in (ABSTAIN, UNPARSED)]
    heard = f"Peers say: {'; '.join(said)}." if said else "Peers say: nothing."
    return [*messages, _message("assistant", own_answer), _message("user", heard)]


def plain_text(messages: Sequence[Message]) -> str:
    """Messages as `role: content` lines, where no chat template is at hand."""
    return "\n".join(f"{m['role']}: {m['content']}" for m in messages)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
