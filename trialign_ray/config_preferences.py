"""What a group prefers, and who says so: the scorers of the configuration's `preferences`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from envs.endpoint_url import checked_url
from trialign_ray.config_sections import Section


class ScorerSection(Section):
    weight: float = Field(default=1.0, gt=0)
    """Weight in the mean of all scorers that have an opinion."""


class RulesSection(ScorerSection):
    """The checkable style rules of the group pack."""

    kind: Literal["rules"] = "rules"
    """Which scorer this is."""


class ClassifierSection(ScorerSection):
    """A style classifier fitted on logged answers (scikit-learn)."""

    kind: Literal["classifier"]
    """Which scorer this is."""
    log: str
    """JSONL, CSV or Parquet file with columns group and text (optionally question, answer and
    liked), or prompt, completion, label and group (TRL's unpaired schema): what users of each group
    liked. With questions and answers their words are masked, so that style alone is learned."""


class RewardModelSection(ScorerSection):
    """A reward model: a transformer with a sequence-classification head."""

    kind: Literal["reward_model"]
    """Which scorer this is."""
    model: str
    """Folder, or name on the Hub."""
    revision: str | None = None
    """Commit, tag or branch on the Hub."""
    scale: float = Field(default=1.0, gt=0)
    """Scores are sigmoid(reward / scale)."""
    batch_size: int = Field(default=16, ge=1)
    """Answers per forward pass."""
    device: str = "cpu"
    """Where it runs, as torch calls it: cpu, cuda, cuda:1, .."""
    chat_template: str | None = None
    """Jinja file of a chat template, for a tokenizer that has none. None: the tokenizer's own."""


class JudgeSection(ScorerSection):
    """A language model as a judge, over an OpenAI-compatible endpoint."""

    kind: Literal["judge"]
    """Which scorer this is."""
    url: str
    """Of the endpoint, up to /v1."""
    model: str
    """Name under which the endpoint knows the judge."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the key."""
    rubric: str = "How well does the answer suit this user in style, register and content?"
    """What the judge is asked."""
    cache: str = "judge_cache.sqlite"
    """File of answers already paid for. Relative: inside the run directory."""
    concurrency: int = Field(default=8, ge=1)
    """Requests under way at once."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Longest wait for one verdict, in seconds."""
    max_completion_tokens: int = Field(default=256, ge=8)
    """Longest reply; a judge that reasons before it speaks needs more."""
    max_retries: int = Field(default=5, ge=0)
    """How often a failed request is made again, with growing pauses."""
    usd_per_million_prompt_tokens: float = Field(default=0.0, ge=0)
    """Price, for the cost that is reported. 0: not known."""
    usd_per_million_completion_tokens: float = Field(default=0.0, ge=0)
    """Price, for the cost that is reported. 0: not known."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        variable = "that the judge's api_key_env names (OPENAI_API_KEY)"
        return checked_url(url, "preferences: url of the judge", variable)


Scorer = Annotated[
    RulesSection | ClassifierSection | RewardModelSection | JudgeSection,
    Field(discriminator="kind"),
]
