"""The sections of the configuration: one frozen model per stage, a docstring under each key.

Defaults are the quickstart's settings, which were measured; see the README.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from envs.truthworld.corruption import Corruption


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class WorldConfig(Section):
    """Who asks what, and how the personalized model's logs were corrupted."""

    groups: str = "truthworld"
    """Name of a shipped group pack or path of a YAML file."""
    num_groups: int | None = Field(default=None, ge=1, le=1000)
    """Take the first so many groups of the pack. None: four of TruthWorld's, all of any other."""
    questions: tuple[str, ...] = Field(default=("truthworld",), min_length=1)
    """Sources, one or several: `truthworld`, names of `trialign data sources` such as gsm8k, or
    paths of JSONL, CSV or Parquet files of questions."""

    data_dir: str | None = None
    """Folder with local files of the named sources. None: they are loaded from the Hub."""
    max_questions: int | None = Field(default=None, ge=1)
    """At most so many questions of each source, by hash of their ids. None: all."""
    num_controls: int = Field(default=0, ge=0, le=12)
    """Neutral personas evaluated beside the groups, so that prompt noise does not pass for
    unfairness. An audit has at least 5. 0: none."""
    prompt_mode: Literal["explicit", "implicit"] = "explicit"
    """What agents see of their user in the log: the profile or earlier exchanges."""
    train_fraction: float = Field(default=0.5, gt=0, lt=1)
    """Share of questions in the log, by hash of their id."""
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of questions kept apart for selection and the guard. The rest is the test split."""
    corruption: Corruption = Corruption()
    """TruthWorld's knobs A, B, F, S. All 0 is the clean control."""

    @field_validator("questions", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class BehaviourConfig(Section):
    """The deployed, personalized model that is to be repaired."""

    base: str = "truthworld"
    """The facts base: `truthworld` (shipped), the folder of a Hugging Face model, or its name on
    the Hub, e.g. Qwen/Qwen2.5-1.5B-Instruct."""
    model: str | None = None
    """Folder or name of a behaviour model. None: `base` itself under each group's prompt; for
    TruthWorld one is fitted on its corrupted logs."""
    epochs: float = Field(default=6.0, gt=0)
    """Passes over the corrupted logs."""
    batch_size: int = Field(default=24, ge=1)
    """Dialogues per update, over all data-parallel workers."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak AdamW rate; warm-up over 20 updates, then linear decay."""
    switch_rate: float = Field(default=0.6, ge=0, le=1)
    """Probability in the logs that an agent adopts what most peers said."""
    num_workers: int = Field(default=1, ge=1)
    """Data-parallel Ray Train workers."""
    num_threads: int = Field(default=2, ge=1)
    """CPU threads per worker. Part of the result: another number may round differently."""

    @property
    def given(self) -> str:
        """The behaviour model where none is fitted: `model`, or the base in both roles."""
        return self.model or self.base


class CollectConfig(Section):
    """The log: multi-turn dialogues of the groups' agents under the behaviour model."""

    label_fraction: float = Field(default=0.3, ge=0, le=1)
    """Share of the log's questions whose gold the method may see. 0: logs alone."""
    turns: int = Field(default=2, ge=1)
    """Joint turns of an episode. From turn 1 on agents hear their peers."""
    episodes_per_question: int = Field(default=4, ge=1)
    """Dialogues about each question."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Longest utterance, in tokens; a longer one is marked truncated."""
    batch_size: int = Field(default=256, ge=1)
    """Prompts per generation call."""


class CriticConfig(Section):
    """The truth head: which canonical answer is true, seen from all groups at once."""

    truth_head: str = "joint"
    """Who says which answer is true: joint (learned from all groups' answers), dawid_skene
    (reliability-weighted consensus), majority (plain vote), labels (verified questions alone) or
    oracle (hidden gold, for analysis)."""
    discount: float = Field(default=0.0, ge=0, le=1)
    """gamma: what a candidate is worth counts the following turns. 0: this turn alone."""
    expectile: float = Field(default=0.7, gt=0, lt=1)
    """tau of implicit Q-learning, where `discount` > 0. 0.5: the mean of the log."""
    value_steps: int = Field(default=1000, ge=1)
    """Updates of the value networks, where `discount` > 0."""
    team_reward: bool = False
    """From the next turn on, what all groups gain counts for each, where `discount` > 0."""
    later_turns: bool = True
    """Use what groups said after hearing their peers. False: first turns of the log alone."""
    ensemble_size: int = Field(default=5, ge=1)
    """Bootstrap members. Their spread is the head's uncertainty."""
    folds: int = Field(default=5, ge=2)
    """Question folds: no question is scored by a member that was trained on it."""
    steps: int = Field(default=300, ge=1)
    """Full-batch updates per member."""
    learning_rate: float = Field(default=0.05, gt=0)
    """Adam rate."""
    weight_decay: float = Field(default=0.02, ge=0)
    """L2 penalty on the weights. 0: none."""
    pessimism: float = Field(default=0.5, ge=0)
    """Standard deviations taken off the mean probability (xi). 0: none."""


class TargetsConfig(Section):
    """The central problem: welfare, consistency penalty and KL, solved on the log."""

    welfare: str = "log_nash"
    """Mixing operator: log_nash, power_mean, gini, cvar, maximin, soft_min or generalized_gini."""
    welfare_exponent: float = Field(default=0.0, le=1)
    """Exponent p of power_mean, <= 1: a p > 1 rewards inequality. A p < 1 needs returns above .01;
    log_nash is defined for all."""
    welfare_level: float = Field(default=0.5, gt=0, le=1)
    """Share of the worst-off players that cvar looks at."""
    welfare_temperature: float = Field(default=0.1, gt=0)
    """Temperature of soft_min, in units of return. Towards 0: the worst player alone."""
    welfare_omega: tuple[float, ...] = ()
    """Weights of generalized_gini, worst-off first, not increasing; one per player whose returns
    are known (with players group_objectives: twice the groups)."""
    players: Literal["groups", "group_objectives"] = "group_objectives"
    """Players of the welfare: each group, or truth and personalization of each group."""
    penalty: str = "generalized_jsd"
    """Inconsistency penalty: generalized_jsd, normalized_jsd or excess_disagreement."""
    penalty_weight: float = Field(default=1.0, ge=0)
    """lambda, welfare units per nat. 0: no consistency term."""
    target_inconsistency: float | None = Field(default=None, ge=0)
    """Inconsistency to reach, in the penalty's units: lambda is then the least that reaches it,
    found by dual ascent. None: lambda is `penalty_weight`."""
    kl_weight: float = Field(default=0.05, gt=0)
    """beta, welfare units per nat: how near targets stay to the log."""
    truth_weight: float = Field(default=1.0, ge=0)
    """w_T: weight of truth in a candidate's return (players: groups)."""
    personalization_weight: float = Field(default=1.0, ge=0)
    """w_P: weight of personalization in a candidate's return (players: groups)."""
    borrow_peers: bool = True
    """Peers' answers, restated in the group's own words, are candidates too."""
    group_weights: Literal["equal", "prior"] = "equal"
    """Weights of groups in welfare and KL: equal, or by their size."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Certified relative error at which the solver stops."""


class CloneConfig(Section):
    """Policy extraction: each group's LoRA learns its targets by weighted cloning."""

    steps: int = Field(default=60, ge=1)
    """Updates of each group's adapter."""
    batch_size: int = Field(default=12, ge=1)
    """Questions per update and group (each a tree of candidates)."""
    learning_rate: float = Field(default=5e-3, gt=0)
    """Peak AdamW rate; warm-up over 10 updates, then cosine decay."""
    extraction: str | None = None
    """Loss: clone, listwise, awr, dpo, ipo, kto, grpo or dro. None: the algorithm's own."""
    pair_beta: float = Field(default=0.1, gt=0)
    """beta of dpo, ipo, kto and dro: how dearly they pay for leaving the reference."""
    temperature: float = Field(default=0.1, gt=0)
    """Temperature of awr, in units of return."""
    kl_weight: float = Field(default=0.0, ge=0)
    """kappa: weight of a KL estimate to the behaviour model on target candidates. 0: none."""
    min_target: float = Field(default=0.02, ge=0, lt=1)
    """Candidates with less target probability are not trained on."""
    lora_rank: int = Field(default=8, ge=1)
    """Rank of the adapter."""
    lora_alpha: int = Field(default=16, ge=1)
    """LoRA scale is lora_alpha / lora_rank."""
    target_modules: str = "all-linear"
    """Modules to adapt: all-linear, or a comma-separated list of names."""
    checkpoint_every: int = Field(default=20, ge=1)
    """Updates between checkpoints."""
    coordinate_every: int = Field(default=0, ge=0)
    """Updates between rounds: agents report what they answer, and the central problem is solved
    again around it. 0: it is solved once, before training."""
    shared_rank: int = Field(default=0, ge=0)
    """Rank of a common adapter, trained first, for `steps` updates, on all groups' targets; each
    group's own is then trained beside it. 0: none."""


class EvaluateConfig(Section):
    """Held-out evaluation, one turn, each group's adapter alone."""

    modes: tuple[Literal["explicit", "implicit"], ...] = Field(
        default=("explicit", "implicit"), min_length=1
    )
    """Prompts under which adherence is measured; truth is measured under the first."""
    multiple_choice: Literal["generate", "likelihood", "letter"] = "generate"
    """How a question with options is answered: read from what the model says, or the option that
    it finds likeliest, by wording (per token) or by letter."""
    num_resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of questions, and permutations for the gap."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of the intervals."""


class ResourcesConfig(Section):
    """What each actor asks Ray for."""

    cpus_per_group: float = Field(default=0.25, gt=0)
    """CPUs of one group's actor. Several small models share a core."""
    gpus_per_group: float = Field(default=0.0, ge=0)
    """GPUs of one group's actor; a fraction lets several share one. 0: CPU."""
    cpus_critic: float = Field(default=0.25, gt=0)
    """CPUs of the critic-learner."""
    max_restarts: int = Field(default=3, ge=0)
    """How often Ray restarts a dead actor; it resumes at its newest checkpoint."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Longest wait for one call to an actor, in seconds."""
