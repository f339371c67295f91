"""Group packs: YAML files with groups that are compared, and the controls they are held against."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from envs.errors import ConfigError
from envs.preferences import StyleRules
from envs.prompt_lengths import length_spreads, length_warnings
from envs.social_group import GROUP_NAME, Exchange, Group, History, Role

__all__ = [
    "GROUP_NAME",
    "PACKS_DIR",
    "Exchange",
    "Group",
    "GroupPack",
    "History",
    "describe_pack",
    "load_pack",
    "shipped_packs",
]

PACKS_DIR = Path(__file__).parent / "packs"
logger = logging.getLogger(__name__)


class GroupPack(BaseModel):
    """A named list of groups with unique names, and the neutral personas they are held against."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    description: str = ""
    """What the groups are, and where numbers come from."""
    role: Role | None = None
    """Whom all profiles describe, user or model. None: what the groups say, or the user."""
    groups: tuple[Group, ...] = Field(min_length=1)
    """The groups. Those with `control: true` join `controls`, unless all of them are such."""
    controls: tuple[Group, ...] = ()
    """Neutral personas in the pack's own words."""

    @model_validator(mode="before")
    @classmethod
    def _groups_inherit_from_the_pack(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        raw = dict(raw)
        role = {} if raw.get("role") is None else {"role": raw["role"]}
        for key, given in (("groups", role), ("controls", role | {"control": True})):
            if isinstance(raw.get(key), list):
                raw[key] = [given | g if isinstance(g, dict) else g for g in raw[key]]
        return raw

    @field_validator("groups", "controls")
    @classmethod
    def _names_are_unique(cls, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        seen: set[str] = set()
        for group in groups:
            if group.name.lower() in seen:
                raise ValueError(f"group name {group.name!r} stands twice; names must be unique")
            seen.add(group.name.lower())
        return groups

    @model_validator(mode="after")
    def _groups_fit_together(self) -> Self:
        everyone = (*self.groups, *self.controls)
        self._names_are_unique(everyone)
        _check_roles(everyone, self.role)
        players = tuple(g for g in self.groups if not g.control) or self.groups
        _check_paraphrases((*players, *self.controls), "profile")
        _check_paraphrases((*players, *self.controls), "history")
        moved = tuple(g for g in self.groups if g not in players)
        # Frozen for its users; its own construction still settles what follows from the rest.
        object.__setattr__(self, "groups", _weighted_by_size(players))
        object.__setattr__(self, "controls", (*moved, *self.controls))
        object.__setattr__(self, "role", players[0].role)
        return self


def shipped_packs() -> list[str]:
    """Names of the packs in `envs/packs`, sorted."""
    return sorted(p.stem for p in PACKS_DIR.glob("*.yaml"))


def load_pack(name_or_path: str) -> GroupPack:
    """The pack of that name in `envs/packs`, or of that YAML file.

    Warns where groups' prompts differ in length, or two groups cannot be told apart.
    Raises: ConfigError, naming the file, the group, the field and the value that is wrong.
    """
    shipped = PACKS_DIR / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_path)
    if not path.is_file():
        raise ConfigError(
            f"group pack {name_or_path!r} is neither a shipped pack ({', '.join(shipped_packs())}) "
            "nor a YAML file; give one of these names or the path of a file"
        )
    raw = None
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        pack = GroupPack.model_validate(raw)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"group pack {path} is not readable YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(_explain(path, raw, error)) from error
    for warning in length_warnings(pack.groups):
        logger.warning("group pack %s: %s", path, warning)
    return pack


def describe_pack(pack: GroupPack) -> list[str]:
    """A pack in lines for a terminal: what it is, each group with weight, size and profile, the
    controls, the spread of prompt lengths."""
    whom = "the user" if pack.role == "user" else "a persona that the model plays"
    variants = max(g.num_variants for g in pack.groups)
    lines = [pack.description] if pack.description else []
    lines.append(
        f"{len(pack.groups)} groups, {len(pack.controls)} controls; profiles describe {whom}; "
        f"{variants} wording{'s' * (variants != 1)} of each prompt"
    )
    total = sum(g.prior_weight for g in pack.groups)
    for group in pack.groups:
        lines.append(f"  {group.name}: {_facts_of(group, group.prior_weight / total)}")
        lines.append(f"    {group.profile}")
    lines += [f"  control {g.name}: {g.profile}" for g in pack.controls]
    for spread in length_spreads(pack.groups):
        (low, high), (few, many) = spread.words, spread.chars
        lines.append(f"  {spread.field}: {low} to {high} words, {few} to {many} characters")
    return lines + [f"warning: {w}" for w in length_warnings(pack.groups)]


def _facts_of(group: Group, share: float) -> str:
    facts = [f"weight {share:.3f}"]
    if group.size is not None:
        facts.append(f"{group.size} people")
    facts += [f"{key} {value}" for key, value in group.attributes.items()]
    rules = group.style.model_dump(exclude_defaults=True)
    facts += [f"{key} {value!r}" for key, value in rules.items() if not key.startswith("other_")]
    return ", ".join(facts if group.history else [*facts, "no history"])


def _explain(path: Path, raw: Any, error: ValidationError) -> str:
    """The first thing wrong with a pack, where, and what there may be instead."""
    first = error.errors()[0]
    loc, own = first["loc"], first["type"] == "value_error"
    where = [_entry(raw, loc)] if len(loc) > 1 else []
    if loc or not own:
        where.append(".".join(map(str, loc)) or "top level")
    message = first["msg"].removeprefix("Value error, ")
    problem = f"group pack {path}: {': '.join([*where, message])}"
    return problem if own else f"{problem} (found {str(first['input'])[:80]!r}); {_expected(first)}"


def _entry(raw: Any, loc: tuple[int | str, ...]) -> str:
    """The group that a location lies in, by its name if it has one."""
    entry = raw[loc[0]][loc[1]]
    named = isinstance(entry, dict) and "name" in entry
    return f"group {entry['name']!r}" if named else f"entry {int(loc[1]) + 1}"


def _expected(first: ErrorDetails) -> str:
    if first["type"] != "extra_forbidden":
        return (
            f"expected 'groups:', a list of name (matching {GROUP_NAME}), profile or profiles, and "
            "optionally history, style, prior_weight and others (docs/groups.md)"
        )
    inside: dict[str, type[BaseModel]] = {
        "style": StyleRules,
        "history": Exchange,
        "histories": Exchange,
    }
    parents = [str(step) for step in first["loc"][:-1]]
    model = GroupPack if not parents else inside.get((*parents, "", "")[2], Group)
    names = [field.alias or name for name, field in model.model_fields.items()]
    return f"expected one of {', '.join(names)}"


def _check_roles(groups: Sequence[Group], stated: Role | None) -> None:
    """Raises: ValueError if some profiles describe the user and others the model."""
    wanted = stated or groups[0].role
    for group in groups:
        if group.role != wanted:
            raise ValueError(
                f"group {group.name!r}: role is {group.role!r}, that of the pack is {wanted!r}; "
                "a pack describes users, or personas that the model plays, not both"
            )


def _check_paraphrases(groups: Sequence[Group], kind: Literal["profile", "history"]) -> None:
    """Raises: ValueError if one group is addressed in more wordings than another. Having no
    history at all is another matter, which is warned of."""
    told = [g for g in groups if kind == "profile" or g.history]
    counts = [len(getattr(g, f"{kind}_variants")) for g in told]
    for group, count in zip(told, counts, strict=True):
        if count != counts[0]:
            many = "profiles" if kind == "profile" else "histories"
            raise ValueError(
                f"group {group.name!r}: number of {many} is {count}, that of group "
                f"{told[0].name!r} is {counts[0]}; every group of a pack needs as many paraphrases"
            )


def _weighted_by_size(groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """`groups` with prior_weight = size / total, where all have a size and none states a weight."""
    sizes = [g.size for g in groups if g.size is not None]
    if sizes and len(sizes) < len(groups):
        without = next(g.name for g in groups if g.size is None)
        raise ValueError(
            f"group {without!r}: size is missing, other groups have one; give a size to all groups "
            "or to none"
        )
    if not sizes or any("prior_weight" in g.model_fields_set for g in groups):
        return groups
    total = sum(sizes)
    return tuple(
        g.model_copy(update={"prior_weight": size / total})
        for g, size in zip(groups, sizes, strict=True)
    )
