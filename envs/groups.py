"""Social groups and the YAML packs that hold them."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from envs.errors import ConfigError
from envs.preferences import StyleRules

GROUP_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
PACKS_DIR = Path(__file__).parent / "packs"


class Exchange(BaseModel):
    """One earlier question of a group and the answer it liked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    question: str
    answer: str


class Group(BaseModel):
    """A social group: what a model is told about it, and what its members like."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=GROUP_NAME)
    """Names the actor, the adapter's folder and the metrics' tag."""
    profile: str = Field(min_length=1)
    """What the explicit prompt says of the user."""
    history: tuple[Exchange, ...] = ()
    """Earlier exchanges; all that the implicit prompt shows."""
    style: StyleRules = StyleRules()
    """Rules by which adherence is checked."""
    prior_weight: float = Field(default=1.0, gt=0)
    """Relative size of the group, > 0."""


class GroupPack(BaseModel):
    """A named list of groups with unique names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    description: str = ""
    groups: tuple[Group, ...] = Field(min_length=1)

    @field_validator("groups")
    @classmethod
    def _names_are_unique(cls, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        seen: set[str] = set()
        for group in groups:
            if group.name.lower() in seen:
                raise ValueError(f"group name {group.name!r} stands twice; names must be unique")
            seen.add(group.name.lower())
        return groups


def load_pack(name_or_path: str) -> GroupPack:
    """The pack of that name in `envs/packs`, or of that YAML file.

    Raises: ConfigError, naming the file, the field and the value that is wrong.
    """
    shipped = PACKS_DIR / f"{name_or_path}.yaml"
    path = shipped if shipped.is_file() else Path(name_or_path)
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in PACKS_DIR.glob("*.yaml")))
        raise ConfigError(
            f"group pack {name_or_path!r} is neither a shipped pack ({names}) nor a YAML file; "
            "give one of these names or the path of a file"
        )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return GroupPack.model_validate(raw)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"group pack {path} is not readable YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "top level"
        raise ConfigError(
            f"group pack {path}: {where}: {first['msg']} (found {str(first['input'])[:80]!r}); "
            f"expected 'groups:', a list of name (matching {GROUP_NAME}), profile, and optionally "
            "history, style, prior_weight"
        ) from error
