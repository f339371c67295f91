"""Whether Ray Tune can go on with its own state. Where it cannot read it, Tune logs that and starts
anew, by which trained trials are forgotten and drawn again; so it is read here before."""

import json
from pathlib import Path

from envs.errors import ConfigError
from tuning.sweep_plan import TRIAL_FILE, read_records, trials_dir
from tuning.trial_folder import SweepFolder

STATES, TUNER = "experiment_state-*.json", "tuner.pkl"


def require_readable_state(folder: SweepFolder) -> None:
    """Raises: ConfigError if trials were begun and Tune's newest state is damaged, or some have
    reported and it knows of none."""
    begun = list(trials_dir(folder.root).glob(f"*/{TRIAL_FILE}"))
    newest = max(folder.tune.glob(STATES), key=lambda path: path.name, default=None)
    known = None if newest is None else _num_trials(newest)
    if known is None and newest is not None and begun:
        raise _lost(folder, f"{newest} is not readable", len(begun))
    tuner = folder.tune / TUNER
    reported = sum(r.step > 0 for r in read_records(folder.root)) if begun else 0
    if reported and not known:
        raise _lost(folder, f"{folder.tune} knows of no trial", reported)
    if reported and not (tuner.is_file() and tuner.stat().st_size):
        raise _lost(folder, f"{tuner} is missing or empty", reported)


def _num_trials(path: Path) -> int | None:
    """How many trials a state holds; None if it is damaged."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        trials = [json.loads(text) for pair in state["trial_data"] for text in pair]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return len(trials) // 2 if "runner_data" in state else None


def _lost(folder: SweepFolder, what: str, count: int) -> ConfigError:
    return ConfigError(
        f"the sweep cannot go on: {what}, so Ray Tune would forget {count} trials and draw others; "
        "choose another --run-dir to search again. Finished trials remain readable in "
        f"{trials_dir(folder.root)}, each is a run of its own (trial.json: its figures)"
    )
