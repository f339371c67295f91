"""Settings of supervised fitting, apart from torch so that a driver can name them cheaply."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SupervisedSettings:
    """Peak rate of AdamW with linear warm-up and decay; `batch_size` dialogues per update."""

    epochs: float
    batch_size: int
    learning_rate: float
    seed: int
    warmup_steps: int = 20
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01
