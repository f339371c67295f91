"""A social group: what a model is told about it, in how many wordings, and what it likes."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from envs.preferences import StyleRules

GROUP_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Role = Literal["user", "model"]


class Exchange(BaseModel):
    """One earlier question of a group and the answer it liked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    question: str
    answer: str


History = tuple[Exchange, ...]


class Group(BaseModel):
    """A social group: what a model is told about it, and what its members like."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=GROUP_NAME)
    """Names the actor, the adapter's folder and the metrics' tag."""
    profile: str = ""
    """What the explicit prompt says of the user; the first of `profiles` where those are given."""
    profiles: tuple[str, ...] = ()
    """Paraphrases of the profile; questions are spread over them. Empty: `profile` alone."""
    history: History = ()
    """Earlier exchanges; all that the implicit prompt shows."""
    histories: tuple[History, ...] = ()
    """Paraphrases of the history. Empty: `history` alone."""
    role: Role = "user"
    """Whom the profile describes: the user, or a persona that the model is to play."""
    attributes: dict[str, Annotated[str, Field(coerce_numbers_to_str=True)]] = {}
    """What the group stands for, such as education: university."""
    size: int | None = Field(default=None, ge=1)
    """People behind the group. None: not known."""
    control: bool = False
    """A neutral persona: it must not matter, so what it changes is noise of the prompt."""
    style: StyleRules = StyleRules()
    """Rules by which adherence is checked."""
    prior_weight: float = Field(default=1.0, gt=0)
    """Relative size of the group, > 0. A pack with sizes and no weights derives it from them."""

    def __hash__(self) -> int:
        return hash((self.name, self.profile))

    @property
    def profile_variants(self) -> tuple[str, ...]:
        """The profile's paraphrases, at least one."""
        return self.profiles or (self.profile,)

    @property
    def history_variants(self) -> tuple[History, ...]:
        """The history's paraphrases; one empty history where there is none."""
        return self.histories or (self.history,)

    @property
    def num_variants(self) -> int:
        """How many paraphrases of its prompt the group has; 1: a single wording."""
        return max(len(self.profile_variants), len(self.history_variants))

    @model_validator(mode="before")
    @classmethod
    def _first_paraphrase_is_the_main_one(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        raw = dict(raw)
        for one, many in (("profile", "profiles"), ("history", "histories")):
            if not raw.get(one) and isinstance(raw.get(many), list | tuple) and raw[many]:
                raw[one] = raw[many][0]
        return raw

    @model_validator(mode="after")
    def _wordings_are_whole(self) -> Self:
        if not all(p.strip() for p in self.profile_variants):
            raise ValueError("profile is empty; say who it is, or give paraphrases as profiles")
        if not all(self.histories):
            raise ValueError("histories: one of them has no exchange")
        _check_wordings("profile", self.profile, "profiles", self.profiles)
        _check_wordings("history", self.history, "histories", self.histories)
        counts = len(self.profiles), len(self.histories)
        if min(counts) > 1 and counts[0] != counts[1]:
            raise ValueError(
                f"there are {counts[0]} profiles and {counts[1]} histories; give as many "
                "paraphrases of both, or a single one of one"
            )
        return self


def history_text(history: History) -> str:
    """All that a history says, user and model."""
    return " ".join(f"{e.question} {e.answer}" for e in history)


def _check_wordings(
    one: str, value: str | History, many: str, values: tuple[str, ...] | tuple[History, ...]
) -> None:
    """Raises: ValueError if two paraphrases are the same, or `value` is not the first of them."""
    if values and values[0] != value:
        raise ValueError(f"{one} is not the first of {many}; give one of the two, not both")
    texts = [v if isinstance(v, str) else history_text(v) for v in values]
    folded = [" ".join(t.casefold().split()) for t in texts]
    if len(set(folded)) < len(folded):
        raise ValueError(f"{many}: a paraphrase stands twice")
