"""The rows of a comparison: every method by name, with the settings that it may choose from.

A method is an algorithm of `trialign_ray.algorithms` with overrides, or a way to answer without
any training, or an average of two adapters. Each trained method has the same number of settings,
from which one is chosen on the validation split of a world that no test row uses.
"""

from dataclasses import dataclass
from typing import Literal

from trialign_ray.errors import ConfigError

Family = Literal["untrained", "baseline", "ours", "ablation", "option"]
Answering = Literal[
    "base", "prompt", "behaviour", "neutral_restyle", "base_restyle", "majority_restyle"
]
Overrides = tuple[str, ...]
SOUP_WEIGHTS = (0.25, 0.5, 0.75)
"""Weight of a soup's first adapter, by setting."""
NUM_SETTINGS = 3
"""Settings that each trained method may choose from."""


@dataclass(frozen=True)
class Method:
    """One row. answering: how an untrained method answers. soup: names of the two methods whose
    adapters it averages. settings: overrides to choose from; `overrides` come after them. tuned_as:
    the method whose chosen setting it takes over. calls: model calls per deployed answer; None: one
    per group and one more."""

    name: str
    family: Family
    summary: str
    algorithm: str | None = None
    overrides: Overrides = ()
    settings: tuple[Overrides, ...] = ((),)
    answering: Answering | None = None
    soup: tuple[str, str] | None = None
    tuned_as: str | None = None
    calls: int | None = 1


def _rates() -> tuple[Overrides, ...]:
    return tuple((f"clone.learning_rate={rate}",) for rate in (0.0025, 0.005, 0.01))


def _weights(*extra: str) -> tuple[Overrides, ...]:
    return tuple((f"targets.personalization_weight={w}", *extra) for w in (0.1, 0.5, 1.0))


def _gentle() -> tuple[Overrides, ...]:
    """Losses on log-ratios are steep: at cloning's rate they unlearn the language."""
    rates = (0.0005, 0.001, 0.002)
    return tuple(
        (f"clone.learning_rate={rate}", "targets.personalization_weight=0.1") for rate in rates
    )


def _lambdas() -> tuple[Overrides, ...]:
    return tuple((f"targets.penalty_weight={value}",) for value in (0.3, 1.0, 3.0))


def _betas() -> tuple[Overrides, ...]:
    return tuple((f"targets.kl_weight={value}",) for value in (0.02, 0.05, 0.15))


def _untrained() -> list[Method]:
    return [
        Method("base", "untrained", "facts base, no profile", answering="base"),
        Method("prompt", "untrained", "facts base under the profile prompt", answering="prompt"),
        Method("behaviour", "untrained", "the deployed personalized model", answering="behaviour"),
        Method(
            "neutral_restyle",
            "untrained",
            "answer without profile, in the group's own words",
            answering="neutral_restyle",
            calls=2,
        ),
        Method(
            "base_restyle",
            "untrained",
            "the facts base's answer without profile, in the deployed model's words",
            answering="base_restyle",
            calls=2,
        ),
        Method(
            "majority_restyle",
            "untrained",
            "all groups' commonest answer, in the group's own words",
            answering="majority_restyle",
            calls=None,
        ),
    ]


def _baseline(name: str, settings: tuple[Overrides, ...], *overrides: str) -> Method:
    from trialign_ray.algorithms import algorithm_by_name

    summary = algorithm_by_name(name).summary
    return Method(name, "baseline", summary, name, overrides, settings)


def _baselines() -> list[Method]:
    return [
        _baseline("sft", _rates()),
        _baseline("truth_sft", _rates()),
        *(
            _baseline(name, _weights())
            for name in ("awr", "group_dro", "maxmin", "grpo", "independent_ppo")
        ),
        *(
            _baseline(name, _gentle())
            for name in ("dpo", "pooled_dpo", "gr_dpo", "ipo", "kto", "modpo", "dro")
        ),
        _baseline("consistency_only", _lambdas()),
        Method(
            "rewarded_soup",
            "baseline",
            "weighted average of truth-only and style-only AWR adapters (A and B factors)",
            soup=("awr_truth", "awr_style"),
            settings=((),) * len(SOUP_WEIGHTS),
        ),
        _same_rewards("utilitarian", "targets.welfare=power_mean", "targets.welfare_exponent=1"),
        _same_rewards("maximin", "targets.welfare=maximin"),
        _same_rewards("nash", "targets.welfare=log_nash"),
    ]


def _same_rewards(name: str, *welfare: str) -> Method:
    """A welfare of what the other baselines know, too: verified truth alone, own utterances."""
    fixed = (*welfare, *LABELS_ONLY, "targets.penalty_weight=0")
    summary = f"{name} welfare of verified truth and preference alone, no penalty"
    return Method(name, "baseline", summary, "trialign", fixed, _betas())


OURS = "trialign"
LABELS_ONLY = ("critic.truth_head=labels", "targets.borrow_peers=false")


def _ours() -> list[Method]:
    summary = "central critic, Nash welfare, penalty"
    return [Method("trialign", "ours", summary, "trialign", (), _lambdas())]


def _ablations() -> list[Method]:
    def without(name: str, summary: str, *overrides: str) -> Method:
        return Method(name, "ablation", summary, "trialign", overrides, _lambdas(), tuned_as=OURS)

    return [
        without("no_penalty", "lambda 0", "targets.penalty_weight=0"),
        without(
            "no_welfare",
            "mean in place of the Nash product",
            "targets.welfare=power_mean",
            "targets.welfare_exponent=1",
        ),
        without("maximin_welfare", "maximin in place of Nash", "targets.welfare=maximin"),
        without("no_central_critic", "verified truth alone", "critic.truth_head=labels"),
        without("no_peers", "first turns of the log alone", "critic.later_turns=false"),
        without("no_borrowing", "own utterances alone", "targets.borrow_peers=false"),
        without("majority_head", "plain vote as truth head", "critic.truth_head=majority"),
        without("dawid_skene_head", "weighted consensus", "critic.truth_head=dawid_skene"),
        without("oracle_head", "hidden gold as truth head: a ceiling", "critic.truth_head=oracle"),
    ]


def _options() -> list[Method]:
    """Other choices within the method, none of them the default."""

    def option(name: str, summary: str, *overrides: str) -> Method:
        return Method(name, "option", summary, "trialign", overrides, _lambdas(), None, None, OURS)

    return [
        option(
            "multi_turn",
            "values of the whole dialogue by implicit Q-learning, team reward",
            "critic.discount=0.9",
            "critic.team_reward=true",
        ),
        option(
            "shared_adapter",
            "a common rank-4 adapter beside each group's own (12 ranks, twice the updates)",
            "clone.shared_rank=4",
        ),
        option(
            "rank_12",
            "its control: own rank 12, twice the updates",
            "clone.lora_rank=12",
            "clone.lora_alpha=24",
            "clone.steps=120",
        ),
        option("coordinated", "solved again every 20 updates", "clone.coordinate_every=20"),
        option("listwise", "listwise extraction", "clone.extraction=listwise"),
        option(
            "awr_extraction",
            "AWR on log q / mu",
            "clone.extraction=awr",
            "clone.temperature=1",
        ),
        option(
            "dpo_extraction",
            "DPO on pairs that the centre makes",
            "clone.extraction=dpo",
            "clone.learning_rate=0.001",
        ),
    ]


def _parts() -> list[Method]:
    """What the soup is made of; rows of their own, so that it can be seen what averaging does."""

    def awr(name: str, truth: float, style: float) -> Method:
        weights = (f"targets.truth_weight={truth}", f"targets.personalization_weight={style}")
        summary = f"AWR, w_T {truth:g}, w_P {style:g}"
        return Method(name, "baseline", summary, "awr", weights)

    return [awr("awr_truth", 1.0, 0.0), awr("awr_style", 0.0, 1.0)]


def all_methods() -> dict[str, Method]:
    """Every method, in the order of the table."""
    rows = [*_untrained(), *_parts(), *_baselines(), *_ours(), *_ablations(), *_options()]
    return {method.name: method for method in rows}


def methods_by_name(names: list[str] | None) -> list[Method]:
    """The named methods (all if None), with what a soup is made of. Raises: ConfigError."""
    known = all_methods()
    if names is None:
        return list(known.values())
    for name in names:
        if name not in known:
            raise ConfigError(
                f"method {name!r} does not exist; expected some of {', '.join(known)}"
            )
    parts = {part for n in names for part in (known[n].soup or ())}
    return [m for m in known.values() if m.name in {*names, *parts}]
