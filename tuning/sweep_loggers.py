"""Who else writes down a sweep's trials: TensorBoard always, MLflow and Weights & Biases on demand.

Both stay on this machine unless their own environment variables (MLFLOW_TRACKING_URI, WANDB_MODE)
say otherwise: nobody's results leave it unasked.
"""

import importlib.util
import os
from typing import Any

from envs.errors import ConfigError
from tuning.sweep_plan import SweepPlan
from tuning.trial_folder import SweepFolder

PROJECT = "trialign"


def check_loggers(plan: SweepPlan) -> None:
    """Raises: ConfigError if a logger's package is not installed."""
    for name in plan.loggers:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"logger {name} needs the package {name}; pip install 'trialign-ray[{name}]'"
            )


def tune_callbacks(plan: SweepPlan, folder: SweepFolder) -> list[Any]:
    """Tune's callbacks for the plan's loggers."""
    from ray.tune.logger import JsonLoggerCallback, TBXLoggerCallback

    makers = {
        "tensorboard": lambda: TBXLoggerCallback(),
        "mlflow": lambda: _mlflow(folder),
        "wandb": lambda: _wandb(folder),
    }
    return [JsonLoggerCallback(), *(makers[name]() for name in dict.fromkeys(plan.loggers))]


def _mlflow(folder: SweepFolder) -> Any:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.root / 'mlflow.db'}"
    return MLflowLoggerCallback(tracking_uri=store, experiment_name=folder.root.name)


def _wandb(folder: SweepFolder) -> Any:
    from ray.air.integrations.wandb import WandbLoggerCallback

    mode = os.environ.setdefault("WANDB_MODE", "offline")
    here = folder.root / "wandb"
    here.mkdir(parents=True, exist_ok=True)
    return WandbLoggerCallback(project=PROJECT, group=folder.root.name, mode=mode, dir=str(here))
