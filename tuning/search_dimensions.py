"""One dimension of a search space: a key of the configuration, its range, and why it is that."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from envs.errors import ConfigError

DIGITS = 4
"""Significant digits of a drawn number: enough to tell trials apart, few enough to copy."""
KINDS = {
    "uniform": ("low", "high"),
    "quniform": ("low", "high", "step"),
    "loguniform": ("low", "high"),
    "randint": ("low", "high"),
    "qrandint": ("low", "high", "step"),
    "lograndint": ("low", "high"),
    "choice": (),
}
"""Distributions by Tune's names, with what each takes. `high` of randint and lograndint is not
drawn itself, as in Tune; a choice takes any number of values."""
INTEGERS, LOGARITHMIC = ("randint", "qrandint", "lograndint"), ("loguniform", "lograndint")
EXTRAS = ("zero_below", "reason")


@dataclass(frozen=True)
class Dimension:
    """What is drawn for one key. bounds: what Tune's distribution of that name takes; of a choice
    its options. zero_below: a smaller number is read as 0, since a logarithmic range has none."""

    key: str
    kind: str
    bounds: tuple[Any, ...]
    zero_below: float | None = None
    reason: str = ""

    def domain(self) -> Any:
        """Tune's distribution."""
        from ray import tune

        make: Callable[..., Any] = getattr(tune, self.kind)
        return make(list(self.bounds)) if self.kind == "choice" else make(*self.bounds)

    def value(self, drawn: Any) -> Any:
        """What goes into the configuration: rounded, and 0 below `zero_below`."""
        if self.kind == "choice":
            return drawn
        if self.kind in INTEGERS:
            return min(max(drawn, self.lowest), self.highest)
        rounded = float(f"{drawn:.{DIGITS}g}")
        if self.zero_below is not None and rounded < self.zero_below:
            return 0.0
        return min(max(rounded, self.lowest), self.highest)

    @property
    def lowest(self) -> Any:
        """Lower end of a range."""
        return self.bounds[0]

    @property
    def highest(self) -> Any:
        """The largest number that a range may give."""
        return self.bounds[1] - 1 if self.kind in ("randint", "lograndint") else self.bounds[1]

    def at(self, share: float) -> Any:
        """The point at a share of the range, in [0, 1]: 0 its lowest, 1 its highest; on a
        logarithmic range in equal ratios. What it gives can also be drawn."""
        if self.kind == "choice":
            return self.bounds[min(int(share * len(self.bounds)), len(self.bounds) - 1)]
        low, high = self.lowest, self.highest
        drawn = (
            low * (high / low) ** share if self.kind in LOGARITHMIC else low + (high - low) * share
        )
        if len(self.bounds) == 3:
            drawn = round(drawn / self.bounds[2]) * self.bounds[2]
        return round(drawn) if self.kind in INTEGERS else min(max(float(drawn), low), high)

    def levels(self, count: int) -> list[Any]:
        """All options of a choice; of a range so many points, its ends among them, the first of
        them 0 where a small number is read as 0."""
        if self.kind == "choice":
            return list(self.bounds)
        places = [0.0]
        if self.zero_below is None:
            places = [i / max(count - 1, 1) for i in range(count)]
        elif count > 1:
            start = self._share(self.zero_below)
            places += [1 - (1 - start) * i / max(count - 2, 1) for i in range(count - 1)][::-1]
        return list(dict.fromkeys(self.at(place) for place in places))

    def _share(self, value: float) -> float:
        low, high = self.lowest, self.highest
        if self.kind in LOGARITHMIC:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def contains(self, value: Any) -> bool:
        """Whether the configuration could get this value."""
        if self.kind == "choice":
            return value in self.bounds
        if self.zero_below is not None and value == 0:
            return True
        return self.lowest <= value <= self.highest

    def words(self) -> str:
        """The range in words: `loguniform 0.01 to 10, 0 below 0.03`."""
        if self.kind == "choice":
            return "one of " + ", ".join(map(str, self.bounds))
        low, high, *step = self.bounds
        text = f"{self.kind} {low:g} to {high:g}" + (f" by {step[0]:g}" if step else "")
        return text if self.zero_below is None else f"{text}, 0 below {self.zero_below:g}"


def parse_dimension(key: str, given: Any, origin: str) -> Dimension:
    """A dimension as a file gives it: `{loguniform: [0.03, 10]}`, `{choice: [4, 8]}`, with
    `zero_below` and `reason` beside it. Raises: ConfigError for an empty or impossible range."""
    where = f"{origin}: {key}"
    kinds = [k for k in given if k not in EXTRAS] if isinstance(given, Mapping) else []
    if len(kinds) != 1 or kinds[0] not in KINDS:
        raise ConfigError(
            f"{where} is {given!r}; expected one of {', '.join(KINDS)} with its range, such as "
            "{loguniform: [0.03, 10]} or {choice: [4, 8, 16]}"
        )
    kind, bounds = kinds[0], given[kinds[0]]
    if not isinstance(bounds, list):
        raise ConfigError(f"{where}.{kind} is {bounds!r}; expected a list")
    if kind == "choice":
        _check_options(where, bounds)
    else:
        bounds = _checked_range(where, kind, bounds)
    zero_below = given.get("zero_below")
    if zero_below is not None:
        zero_below = _checked_zero(where, kind, bounds, zero_below)
    return Dimension(key, kind, tuple(bounds), zero_below, str(given.get("reason", "")))


def _check_options(where: str, options: list[Any]) -> None:
    if not options:
        raise ConfigError(f"{where}.choice is empty; give at least two values to choose from")
    for option in options:
        if not (option is None or isinstance(option, bool | int | float | str)):
            raise ConfigError(
                f"{where}.choice has {option!r}; expected numbers, words, true, false or null"
            )
    if len(set(map(repr, options))) < len(options):
        raise ConfigError(f"{where}.choice names a value twice: {options}; name each once")


def _checked_range(where: str, kind: str, bounds: list[Any]) -> list[Any]:
    names = KINDS[kind]
    numbers = [_number(b) for b in bounds]
    if len(bounds) != len(names) or None in numbers:
        raise ConfigError(
            f"{where}.{kind} is {bounds}; expected {len(names)} numbers: {', '.join(names)}"
        )
    known = [n for n in numbers if n is not None]
    low, high = known[:2]
    if kind in INTEGERS and any(n != int(n) for n in known):
        raise ConfigError(f"{where}.{kind} is {bounds}; expected whole numbers")
    room = high - 1 if kind in ("randint", "lograndint") else high
    if not low < room:
        not_drawn = ", and the upper end is not drawn" if room < high else ""
        raise ConfigError(
            f"{where}.{kind} is {bounds}, an empty range{not_drawn}; expected low < high (for one "
            f"value use --set {where.rpartition(' ')[2]}=..)"
        )
    if kind in LOGARITHMIC and low <= 0:
        raise ConfigError(
            f"{where}.{kind} starts at {low:g}; a logarithmic range starts above 0 (use zero_below "
            "to have 0 drawn too)"
        )
    if len(known) == 3:
        _check_step(where, kind, low, high, known[2])
    return [int(n) for n in known] if kind in INTEGERS else known


def _check_step(where: str, kind: str, low: float, high: float, step: float) -> None:
    if not 0 < step <= high - low or any(
        not math.isclose(end / step, round(end / step), abs_tol=1e-9) for end in (low, high)
    ):
        raise ConfigError(
            f"{where}.{kind} goes from {low:g} to {high:g} by {step:g}; expected a step above 0 of "
            "which both ends are multiples"
        )


def _number(value: Any) -> float | None:
    """A finite number; also 1e-3, which YAML reads as a word."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _checked_zero(where: str, kind: str, bounds: list[Any], zero_below: Any) -> float:
    number = _number(zero_below)
    if kind not in ("uniform", "loguniform") or number is None:
        raise ConfigError(
            f"{where}.zero_below is {zero_below!r} beside {kind}; expected a number, beside "
            "uniform or loguniform"
        )
    low, high = bounds[:2]
    if not low < number < high:
        raise ConfigError(
            f"{where}.zero_below is {number:g}, outside the range {low:g} to {high:g}: "
            "0 would be drawn never or always"
        )
    return number
