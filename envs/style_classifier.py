"""A style classifier fitted on logs: how much a text sounds like what one group likes.

Per group one logistic regression, the group's liked texts against all others (and those it
disliked), over hashed character and word n-grams of the masked text (`envs.style_mask`). Both sides
weigh one half, so 0.5 means "could be anybody's" whatever the number of groups. Probabilities are
calibrated (Platt 1999) on decision values of folds that the regression had not seen.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from envs.errors import ConfigError, DataError
from envs.style_log import LoggedText
from envs.style_mask import MASK, frequent_words, masked
from envs.types import Question

NUM_FEATURES = 2**13
NUM_FOLDS = 5
MIN_TEXTS = 10
"""Texts that each side needs, of so many different questions (or texts, if questions are not
known) that every fold has some."""
MIN_WORD_COUNT = 3
"""A word that fewer texts of the log have is content, not style; 1 % of them if that is more."""
_VERSION = 1


@dataclass(frozen=True)
class StyleFit:
    """How well a group's style is told from the others', on folds that were not fitted on.

    Both sides weigh one half: guessing has accuracy 0.5 and Brier score 0.25.
    """

    num_own: int
    num_other: int
    accuracy: float
    brier: float


@dataclass(frozen=True)
class StyleClassifier:
    """The scorer. Rows of the weights are groups: score = sigmoid(slope (x w + b) + offset)."""

    groups: tuple[str, ...]
    words: frozenset[str]
    weight_GF: NDArray[np.float64]
    bias_G: NDArray[np.float64]
    slope_G: NDArray[np.float64]
    offset_G: NDArray[np.float64]
    fits: Mapping[str, StyleFit]

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None:
        """The calibrated probability that the text is in the group's style; None where nothing but
        the answer was said. Raises: ConfigError for a group that the log did not have."""
        if group not in self.groups:
            raise ConfigError(
                f"the style classifier knows no group {group!r}; its log has "
                f"{', '.join(self.groups)}; add texts of {group!r} to the log"
            )
        seen = masked(text, answer, question.text, question.choices, self.words)
        if not seen.replace(MASK, "").strip(" .\n"):
            return None
        row = self.groups.index(group)
        value = (_features([seen]) @ self.weight_GF[row])[0] + self.bias_G[row]
        return float(_sigmoid(self.slope_G[row] * value + self.offset_G[row]))

    def save(self, path: Path) -> None:
        """Writes the classifier as arrays (npz, no pickle)."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        facts = {
            "version": _VERSION,
            "groups": self.groups,
            "words": sorted(self.words),
            "fits": {group: asdict(fit) for group, fit in self.fits.items()},
        }
        with partial.open("wb") as file:
            np.savez(
                file,
                facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
                weight_GF=self.weight_GF,
                bias_G=self.bias_G,
                slope_G=self.slope_G,
                offset_G=self.offset_G,
            )
        partial.replace(path)


def load_style_classifier(path: Path) -> StyleClassifier:
    """The classifier that `save` wrote. Raises: DataError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            if facts["version"] != _VERSION:
                raise ValueError(f"version {facts['version']}, this library reads {_VERSION}")
            return StyleClassifier(
                groups=tuple(facts["groups"]),
                words=frozenset(facts["words"]),
                fits={group: StyleFit(**fit) for group, fit in facts["fits"].items()},
                **{name: arrays[name] for name in ("weight_GF", "bias_G", "slope_G", "offset_G")},
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(f"{path} is no saved style classifier ({error}); fit it again") from error


def fit_style_classifier(rows: Sequence[LoggedText], log: str) -> StyleClassifier:
    """One classifier per group of the log; the same rows give the same classifier.

    Args: log: what the rows are called in errors.
    Raises: DataError where a group has too few texts, or nothing to be told from.
    """
    once = [masked(r.text, r.answer, r.question) for r in rows]
    words = frequent_words(once, max(MIN_WORD_COUNT, len(rows) // 100))
    seen = [masked(text, kept=words) for text in once]
    features = _features(seen)
    topic = np.unique([r.question or r.text for r in rows], return_inverse=True)[1]
    groups = tuple(dict.fromkeys(r.group for r in rows))
    fitted = [_fit_group(g, rows, features, topic, log) for g in groups]
    return StyleClassifier(
        groups=groups,
        words=words,
        weight_GF=np.stack([f[0] for f in fitted]),
        bias_G=np.array([f[1] for f in fitted]),
        slope_G=np.array([f[2] for f in fitted]),
        offset_G=np.array([f[3] for f in fitted]),
        fits={g: f[4] for g, f in zip(groups, fitted, strict=True)},
    )


def _fit_group(
    group: str, rows: Sequence[LoggedText], features: Any, topic: NDArray[np.int64], log: str
) -> tuple[NDArray[np.float64], float, float, float, StyleFit]:
    own = np.array([r.group == group and r.liked for r in rows])
    other = np.array([(r.group == group) != r.liked for r in rows])
    used = own | other
    y, x, topics = own[used], features[used.nonzero()[0]], topic[used]
    _require_enough(group, y, topics, log)
    folds = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=0)
    splits = list(folds.split(x, y, topics))
    if any(len(np.unique(y[train])) < 2 for train, _ in splits):
        raise DataError(
            f"style log {log}: all texts of one side of group {group!r} are about the same "
            "question, so that they cannot be split; add texts about other questions"
        )
    value = _held_out(x, y, splits, "decision_function")[:, None]
    probability = _held_out(value, y, splits, "predict_proba")[:, 1]
    weight = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    platt, model = _regression().fit(value, y), _regression().fit(x, y)
    fit = StyleFit(
        num_own=int(y.sum()),
        num_other=int((~y).sum()),
        accuracy=float(weight @ ((probability > 0.5) == y)),
        brier=float(weight @ (probability - y) ** 2),
    )
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    return model.coef_[0], float(model.intercept_[0]), slope, offset, fit


def _held_out(x: Any, y: NDArray[np.bool_], splits: list[Any], method: str) -> NDArray[np.float64]:
    """What regressions say of the fold that each has not seen."""
    return np.asarray(cross_val_predict(_regression(), x, y, cv=splits, method=method))


def _require_enough(group: str, y: NDArray[np.bool_], topics: NDArray[np.int64], log: str) -> None:
    for side, name in ((y, "liked texts"), (~y, "texts to be told from")):
        num_topics = len(np.unique(topics[side]))
        if side.sum() < MIN_TEXTS or num_topics < NUM_FOLDS:
            raise DataError(
                f"style log {log}: group {group!r} has {int(side.sum())} {name}, about "
                f"{num_topics} different questions; expected at least {MIN_TEXTS} about "
                f"{NUM_FOLDS} (texts that others liked, or that this group disliked, count as "
                "texts to be told from)"
            )


def _regression() -> LogisticRegression:
    return LogisticRegression(
        class_weight="balanced", max_iter=2000, C=10.0, solver="liblinear", random_state=0
    )


def _features(texts: Sequence[str]) -> csr_matrix:
    """Hashed counts, each half of length 1: characters within words, and words with punctuation."""
    halves = [
        HashingVectorizer(
            n_features=NUM_FEATURES, alternate_sign=False, lowercase=False, **how
        ).transform(texts)
        for how in (
            {"analyzer": "char_wb", "ngram_range": (2, 4)},
            {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"\w+|[^\w\s]"},
        )
    ]
    return csr_matrix(hstack(halves))


def _sigmoid(x: float) -> float:
    return float(0.5 * (1 + np.tanh(0.5 * x)))
