"""The configuration as a whole: read, overridden, checked. An unknown key is an error."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from trialign_ray.config_models import EngineConfig, ModelConfig
from trialign_ray.config_preferences import RulesSection, Scorer
from trialign_ray.config_sections import (
    BehaviourConfig,
    CloneConfig,
    CollectConfig,
    CriticConfig,
    EvaluateConfig,
    ResourcesConfig,
    Section,
    TargetsConfig,
    WorldConfig,
)
from trialign_ray.errors import ConfigError

RENAMED_KEYS = {
    "collect.label_share": "collect.label_fraction",
    "targets.lambda": "targets.penalty_weight",
    "targets.beta": "targets.kl_weight",
}
"""Names used in papers or earlier versions, and what they are called here."""


class Config(Section):
    """Everything that decides a run's result."""

    seed: int = Field(default=0, ge=0)
    """One seed decides everything random."""
    algorithm: str = "trialign"
    """What turns the log into targets; see `trialign_ray/algorithms`."""
    world: WorldConfig = WorldConfig()
    preferences: tuple[Scorer, ...] = (RulesSection(),)
    """Who says how well an answer suits a group: rules, classifier, reward_model or judge; several
    are averaged by weight."""
    model: ModelConfig = ModelConfig()
    engine: EngineConfig = EngineConfig()
    behaviour: BehaviourConfig = BehaviourConfig()
    collect: CollectConfig = CollectConfig()
    critic: CriticConfig = CriticConfig()
    targets: TargetsConfig = TargetsConfig()
    clone: CloneConfig = CloneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    resources: ResourcesConfig = ResourcesConfig()

    @property
    def fits_behaviour(self) -> bool:
        """Whether the personalized model is fitted here, on TruthWorld's corrupted logs: where none
        is given and either the base or all questions are TruthWorld's."""
        embedded = self.behaviour.base == "truthworld" or self.world.questions == ("truthworld",)
        return self.behaviour.model is None and embedded

    @property
    def judged_by_rules(self) -> "Config":
        """The same, but style is judged by rules alone: for whoever needs questions and groups and
        no scores, so that no judge is asked, no classifier fitted and no reward model loaded."""
        return self.model_copy(update={"preferences": (RulesSection(),)})

    @model_validator(mode="after")
    def _splits_leave_a_test_split(self) -> "Config":
        used = self.world.train_fraction + self.world.validation_fraction
        if used >= 1:
            raise ValueError(
                f"world.train_fraction + world.validation_fraction is {used:g}; expected less than "
                "1, the rest is the test split"
            )
        return self


def load_config(path: Path | None, overrides: list[str] | None = None) -> Config:
    """The configuration of a YAML file (defaults if None) with `a.b=value` overrides applied.

    Raises: ConfigError, naming the key, its value, what was expected, and the nearest known key.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"configuration {path} does not exist; give the path of a YAML file")
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"configuration {path} is not readable YAML: {error}") from error
        if not isinstance(tree, dict):
            raise ConfigError(f"configuration {path} holds a {type(tree).__name__}, not a mapping")
    for override in overrides or []:
        _apply_override(tree, override)
    return parse_config(tree, str(path or "the command line"))


def parse_config(tree: dict[str, Any], origin: str) -> Config:
    """The validated configuration. Raises: ConfigError."""
    _refuse_renamed(tree, ())
    given = {k: v for k, v in tree.items() if v is not None}  # an empty section is its defaults
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        lines = [_explain(e) for e in error.errors()]
        raise ConfigError(f"{origin}: " + "; ".join(lines)) from error


def field_names(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every key as `section.key`."""
    names = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += field_names(kind, f"{prefix}{name}.")
        else:
            names.append(f"{prefix}{name}")
    return names


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, separator, raw = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {override!r}: expected section.key=value")
    *parents, leaf = key.strip().split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override!r}: {parent} is a value, it has no keys below it")
    try:
        node[leaf] = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not readable YAML") from error


def _refuse_renamed(tree: dict[str, Any], path: tuple[str, ...]) -> None:
    for key, value in tree.items():
        dotted = ".".join((*path, str(key)))
        if dotted in RENAMED_KEYS:
            raise ConfigError(f"key {dotted!r} is called {RENAMED_KEYS[dotted]!r}; rename it")
        if isinstance(value, dict):
            _refuse_renamed(value, (*path, str(key)))


def _explain(error: Any) -> str:
    import difflib

    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, field_names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "see `trialign config schema`"
        return f"unknown key {key!r}; {hint}"
    return (
        f"{key or 'configuration'} is {error['input']!r}: {error['msg']}" if key else error["msg"]
    )
