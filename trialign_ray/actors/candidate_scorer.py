"""The network of a group in RLlib's PPO: a score per candidate, by one function for every place.

The order of candidates carries no meaning, so the policy does not depend on it: each candidate is
scored by its own features beside the mean over the group's candidates (Zaheer et al. 2017, "Deep
sets", arXiv 1703.06114, eq. 4). Padding is masked, not learned.

Shapes: B observations, K candidates (padded), F features, H hidden units.
"""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

MASKED_LOGIT = -1e9


class CandidateScorer(TorchRLModule, ValueFunctionAPI):
    """Policy and value of a group over a `CandidateChoiceWorld` observation.

    model_config: `num_features` (F, without the mask) and `hidden_units` (H).
    """

    def setup(self) -> None:
        self._num_features = self.model_config["num_features"]
        hidden = self.model_config["hidden_units"]
        self._score = _network(2 * self._num_features, hidden)
        self._value = _network(2 * self._num_features, hidden)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        inputs_BKF, mask_BK = self._inputs(batch)
        logits_BK = self._score(inputs_BKF).squeeze(-1)
        return {Columns.ACTION_DIST_INPUTS: logits_BK.masked_fill(~mask_BK, MASKED_LOGIT)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any | None = None) -> Tensor:
        """The value of an observation: the mean over its candidates of a value network."""
        inputs_BKF, mask_BK = self._inputs(batch)
        return _masked_mean(self._value(inputs_BKF), mask_BK).squeeze(-1)

    def _inputs(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Each candidate's features beside their mean, shape (B, K, 2 F), and the mask."""
        seen_BKF = batch[Columns.OBS].unflatten(-1, (-1, self._num_features + 1))
        features_BKF, mask_BK = seen_BKF[..., :-1], seen_BKF[..., -1] > 0.5
        mean_B1F = _masked_mean(features_BKF, mask_BK).unsqueeze(-2)
        return torch.cat([features_BKF, mean_B1F.expand_as(features_BKF)], -1), mask_BK


def _network(num_inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1))


def _masked_mean(values_BKF: Tensor, mask_BK: Tensor) -> Tensor:
    weight_BK1 = mask_BK.unsqueeze(-1).to(values_BKF.dtype)
    return (values_BKF * weight_BK1).sum(-2) / weight_BK1.sum(-2).clamp_min(1.0)
