"""The space that `trialign tune` searches: which keys, from where to where, and why.

A drawn point holds a value for every dimension. `Space.settings` makes of it what a trial sets:
numbers rounded, small ones 0 where a dimension says so, and without dimensions that the point does
not read (see `search_conditions`).
"""

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from envs.errors import ConfigError, TrialignError
from trialign_ray.config import RENAMED_KEYS, Config, field_names, parse_config
from tuning.search_conditions import SEARCHED, condition_of
from tuning.search_dimensions import Dimension, parse_dimension
from tuning.search_points import spread_points
from tuning.search_ranges import RANGES, SHIPPED

Point = dict[str, Any]
"""Values by key, as drawn."""
MAX_CORNERS, NUM_SAMPLES = 256, 64


@dataclass(frozen=True)
class Space:
    """Dimensions on top of a configuration. left_out: shipped dimensions that the configuration
    never reads, with the condition under which it would."""

    name: str
    config: Config
    dimensions: tuple[Dimension, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def param_space(self) -> dict[str, Any]:
        """Tune's distributions by key."""
        return {d.key: d.domain() for d in self.dimensions}

    def values(self, point: Mapping[str, Any]) -> Point:
        """What a point gives to every key, read or not."""
        return {d.key: d.value(point[d.key]) for d in self.dimensions}

    def resolved(self, point: Mapping[str, Any]) -> Config:
        """The configuration of a drawn point, as a trial has it. Raises: ConfigError."""
        return self._configured(self.settings(point))

    def settings(self, point: Mapping[str, Any]) -> Point:
        """What a trial sets, by key; without idle dimensions. Raises: ConfigError."""
        values = self.values(point)
        config = self._configured(values)
        return {k: v for k, v in values.items() if _reads(config, k)}

    def idle(self, point: Mapping[str, Any]) -> dict[str, str]:
        """Dimensions that the point does not read, each with the condition under which it would."""
        read = self.settings(point)
        conditions = {d.key: condition_of(d.key) for d in self.dimensions if d.key not in read}
        return {key: c.words for key, c in conditions.items() if c is not None}

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        """The settings as `--set` takes them."""
        return [override(key, value) for key, value in self.settings(point).items()]

    def lines(self) -> list[str]:
        """Every dimension with its range, its condition and its reason."""
        lines = []
        for d in self.dimensions:
            condition = condition_of(d.key)
            always = condition is None or all(_reads(c, d.key) for c in self._sampled())
            only = "" if always or condition is None else f" (only where {condition.words})"
            lines.append(f"{d.key}: {d.words()}{only}" + (f": {d.reason}" if d.reason else ""))
        return lines + [f"{key}: left out, read only where {why}" for key, why in self.left_out]

    def _sampled(self) -> list[Config]:
        return [self.resolved(p) for p in spread_points(self.dimensions, NUM_SAMPLES, seed=0)]

    def _configured(self, values: Mapping[str, Any]) -> Config:
        tree = self.config.model_dump(mode="json")
        for key, value in values.items():
            *parents, leaf = key.split(".")
            node = tree
            for parent in parents:
                node = node[parent]
            node[leaf] = value
        named = ", ".join(f"{k}={v}" for k, v in values.items())
        return parse_config(tree, f"space {self.name} at {named}")


def override(key: str, value: Any) -> str:
    """`key=value` such that `--set` reads the value back; a word is quoted only if it must be."""
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
    return f"{key}={text}"


def read_space(given: str | None, config: Config, check: Callable[[Config], None]) -> Space:
    """The space to search, every point of it a valid configuration.

    Args:
        given: a shipped name (penalties, default, all), the path of a YAML file, or None: default.
        check: raises where a configuration contradicts itself (`checks.check_names`).
    Raises: ConfigError: unknown names with the close ones, empty ranges, dimensions that nothing
    reads, and points that are no valid configuration.
    """
    name = given or "default"
    if name in SHIPPED:
        space = _shipped(name, config)
    else:
        space = Space(name, config, _from_file(Path(name)))
    if not space.dimensions:
        raise ConfigError(f"space {name} has no dimension that this configuration reads")
    read = _checked_points(space, check)
    for dimension in space.dimensions:
        condition = condition_of(dimension.key)
        if dimension.key not in read and condition is not None:
            raise ConfigError(
                f"space {name}: {dimension.key} would change nothing, it is read only where "
                f"{condition.words}; add that to the space or to the configuration, or leave it out"
            )
    return space


def _shipped(name: str, config: Config) -> Space:
    """A shipped space, without what the configuration cannot read whatever is drawn."""
    dimensions = [parse_dimension(k, RANGES[k], f"space {name}") for k in SHIPPED[name]]
    drawn = Space(name, config, tuple(dimensions))._sampled()
    kept, left_out = [], []
    for dimension in dimensions:
        condition = condition_of(dimension.key)
        if condition is None or any(condition.holds(c) for c in drawn):
            kept.append(dimension)
        else:
            left_out.append((dimension.key, condition.words))
    return Space(name, config, tuple(kept), tuple(left_out))


def _from_file(path: Path) -> tuple[Dimension, ...]:
    if not path.is_file():
        raise ConfigError(
            f"space {path} does not exist; expected {', '.join(SHIPPED)} or the path of a YAML file"
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"space {path} is not readable YAML: {error}") from error
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(
            f"space {path} holds no mapping of keys to ranges, such as "
            "`targets.penalty_weight: {loguniform: [0.03, 10]}`"
        )
    for key in tree:
        _check_key(str(key), str(path))
    return tuple(parse_dimension(str(key), given, str(path)) for key, given in tree.items())


def _check_key(key: str, origin: str) -> None:
    if key in RENAMED_KEYS:
        raise ConfigError(f"{origin}: {key!r} is called {RENAMED_KEYS[key]!r}; rename it")
    known = field_names()
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        near += [k for k in known if key.rpartition(".")[2] == k.rpartition(".")[2]]
        hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        raise ConfigError(
            f"{origin}: the configuration has no key {key!r}; "
            f"{hint or '`trialign config schema` lists them'}"
        )
    if key.partition(".")[0] not in SEARCHED:
        raise ConfigError(
            f"{origin}: {key} decides the log or the exam, which all trials share; set it with "
            f"--set, one sweep per value (searched are keys of {', '.join(SEARCHED)})"
        )


def _checked_points(space: Space, check: Callable[[Config], None]) -> set[str]:
    """Keys that some corner or sample reads. Raises: ConfigError for one that is not valid."""
    read: set[str] = set()
    for point in _probes(space):
        try:
            config = space.resolved(point)
            check(config)
        except TrialignError as error:
            shown = " ".join(override(k, v) for k, v in space.values(point).items())
            raise ConfigError(
                f"space {space.name} has a point that is no valid configuration: {error} (it is "
                f"{shown}); narrow the range"
            ) from error
        read |= {d.key for d in space.dimensions if _reads(config, d.key)}
    return read


def _probes(space: Space) -> Iterator[Point]:
    """Corners of the space, all options of every choice, and points spread over its inside."""
    ends = [d.levels(2) for d in space.dimensions]
    keys = [d.key for d in space.dimensions]
    for corner in itertools.islice(itertools.product(*ends), MAX_CORNERS):
        yield dict(zip(keys, corner, strict=True))
    middle = {d.key: d.at(0.5) for d in space.dimensions}
    for dimension, values in zip(space.dimensions, ends, strict=True):
        for value in values:
            yield {**middle, dimension.key: value}
    yield from spread_points(space.dimensions, NUM_SAMPLES, seed=0)


def _reads(config: Config, key: str) -> bool:
    condition = condition_of(key)
    return condition is None or condition.holds(config)
