"""RLlib's PPO on `CandidateChoiceWorld`, one policy per group: the independent baseline.

No group sees another's candidates, answers or rewards, and no network is shared (independent PPO:
de Witt et al. 2020, arXiv 2011.09533). All of it runs in the calling process.

Shapes: G groups, X questions, K candidates (padded), F features of a candidate.
"""

import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.choice_world import CandidateChoiceWorld, ChoiceProblem
from trialign_ray.critic import CandidateTensors
from trialign_ray.errors import ConfigError, ShapeError, WorkerError

MAX_SEED = 2**31
RLLIB_WORLD_ID = "rllib-multi-agent-env-v0"
"""Under which RLlib registers any multi-agent environment with gymnasium."""


@dataclass(frozen=True)
class PPOSettings:
    """Settings of RLlib's PPO; the rest is its default, but no KL term and gradients of norm 1."""

    questions_per_iteration: int = 512
    """Episodes sampled between updates."""
    minibatch_size: int = 256
    """Choices of each group in one gradient step."""
    epochs: int = 8
    """Passes over the sample in one update."""
    learning_rate: float = 1e-2
    """Adam's step size."""
    entropy_weight: float = 0.0
    """Reward units per nat of entropy; 0: none."""
    hidden_units: int = 32
    """Width of each group's networks."""


def choice_problem(
    tensors: CandidateTensors,
    reward_GXK: Tensor,
    groups: Sequence[str] = (),
) -> ChoiceProblem:
    """The problem in which each group sees its own candidates and is paid `reward_GXK`.

    Features of a candidate: its share mu of the log, personalization and whether that is known,
    truth and whether that is known. All are the group's own, if the truth of `tensors` is the
    verified one alone: a central estimate would bring the peers in.

    Args:
        reward_GXK: any scale; NaN where not known, which pays 0.
        groups: names, ("0", "1", ...) if empty.
    Raises: ShapeError, DataError.
    """
    mask_GXK = tensors.mask_GXK
    if reward_GXK.shape != mask_GXK.shape:
        raise ShapeError(
            f"reward is of shape {tuple(reward_GXK.shape)}; expected that of the candidates, "
            f"{tuple(mask_GXK.shape)} (groups, questions, candidates)"
        )
    columns = [tensors.reference_GXK]
    for value_GXK in (tensors.personalization_GXK, tensors.truth_GXK):
        columns += [torch.nan_to_num(value_GXK), (~value_GXK.isnan()).float()]
    features = torch.stack(columns, -1)
    return ChoiceProblem(
        groups=tuple(groups) or tuple(map(str, range(len(mask_GXK)))),
        features_GXKF=features.float().numpy(),
        reward_GXK=reward_GXK.float().numpy(),
        mask_GXK=mask_GXK.numpy(),
    )


def train_independent_ppo(
    problem: ChoiceProblem,
    iterations: int = 20,
    seed: int = 0,
    *,
    settings: PPOSettings | None = None,
    on_iteration: Callable[[int, float], None] | None = None,
    timeout_s: float = 600.0,
) -> NDArray[np.float64]:
    """Each group's probabilities of its candidates after training, shape (G, X, K).

    Rows sum to 1 and are 0 on padding; a group that is absent on a question has a row of zeros.
    The same problem, settings and seed give the same bits on the same machine: sampling and
    learning are in this process, on one thread. Uses the Ray that runs, else the cluster that
    RAY_ADDRESS names, else one of its own for the time of the call.

    Args:
        iterations: samples and updates, >= 1.
        on_iteration: called with the iteration, from 0, and the mean over groups of the reward of
            a choice in that iteration's sample.
        timeout_s: > 0; checked between iterations.
    Raises: ConfigError, WorkerError if time is up.
    """
    if iterations < 1 or timeout_s <= 0:
        raise ConfigError(
            f"independent PPO with {iterations} iterations within {timeout_s:g} s; expected at "
            "least 1 iteration and a time above 0"
        )
    deadline = time.monotonic() + timeout_s
    with _contained(), _ray_running():
        config = _config(problem, seed % MAX_SEED, settings or PPOSettings())
        algorithm = config.build_algo()
        try:
            for iteration in range(iterations):
                reward = _mean_reward(algorithm.train())
                if on_iteration is not None:
                    on_iteration(iteration, reward)
                if iteration + 1 < iterations and time.monotonic() > deadline:
                    raise WorkerError(
                        f"independent PPO did {iteration + 1} of {iterations} iterations in "
                        f"{timeout_s:g} s; lower iterations or raise timeout_s"
                    )
            return np.stack([_policy(algorithm, problem, g) for g in range(len(problem.groups))])
        finally:
            algorithm.stop()
            shutil.rmtree(algorithm.logdir, ignore_errors=True)


def _config(problem: ChoiceProblem, seed: int, settings: PPOSettings) -> Any:
    """RLlib's configuration: nothing remote, one module per group.

    Groups are numbers here: RLlib walks sets of agents while it draws, and the order of a set of
    names is another in every process.
    """
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

    from trialign_ray.actors.candidate_scorer import CandidateScorer

    sizes = {
        "num_features": problem.features_GXKF.shape[-1],
        "hidden_units": settings.hidden_units,
    }
    numbers = tuple(range(len(problem.groups)))
    modules = {
        _module_id(g): RLModuleSpec(module_class=CandidateScorer, model_config=dict(sizes))
        for g in numbers
    }
    num_questions = settings.questions_per_iteration
    return (
        PPOConfig()
        .environment(CandidateChoiceWorld, env_config={"problem": replace(problem, groups=numbers)})
        .framework("torch")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=_num_worlds(num_questions))
        .learners(num_learners=0, num_gpus_per_learner=0)
        .training(
            lr=settings.learning_rate,
            train_batch_size_per_learner=num_questions,
            minibatch_size=min(settings.minibatch_size, num_questions),
            num_epochs=settings.epochs,
            entropy_coeff=settings.entropy_weight,
            use_kl_loss=False,
            grad_clip=1.0,
        )
        .multi_agent(
            policies=list(modules),
            policy_mapping_fn=lambda agent, episode, **_: _module_id(agent),
        )
        .rl_module(rl_module_spec=MultiRLModuleSpec(rl_module_specs=modules))
        .reporting(metrics_num_episodes_for_smoothing=num_questions)
        .debugging(seed=seed, log_level="ERROR")
    )


def _module_id(g: Any) -> str:
    return f"group-{g}"


def _num_worlds(num_questions: int) -> int:
    """Worlds side by side: the greatest divisor up to 128, so that a sample has no remainder."""
    return max(n for n in range(1, min(num_questions, 128) + 1) if num_questions % n == 0)


def _mean_reward(result: dict[str, Any]) -> float:
    returns = result["env_runners"]["module_episode_returns_mean"]
    return float(np.mean([returns[module] for module in sorted(returns)]))


def _policy(algorithm: Any, problem: ChoiceProblem, g: int) -> NDArray[np.float64]:
    """A group's action distribution on every question, shape (X, K)."""
    seen_XD = torch.from_numpy(problem.observation_GXD[g])
    with torch.no_grad():
        out = algorithm.get_module(_module_id(g)).forward_inference({"obs": seen_XD})
    logits_XK = out["action_dist_inputs"].double()
    mask_XK = torch.from_numpy(problem.mask_GXK[g])
    probability_XK = logits_XK.masked_fill(~mask_XK, -torch.inf).softmax(-1)
    return torch.where(mask_XK, probability_XK, 0.0).numpy()


@contextmanager
def _ray_running() -> Iterator[None]:
    """A Ray for the block; shut down afterwards if it was started or joined here."""
    import ray

    if ray.is_initialized():
        yield
        return
    here: dict[str, Any] = {"address": "local", "num_cpus": 1, "include_dashboard": False}
    ray.init(
        log_to_driver=False,
        logging_level=logging.ERROR,
        **({} if os.environ.get("RAY_ADDRESS") else here),
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _contained() -> Iterator[None]:
    """Gives back what RLlib changes for the whole process: seeds, logging, gymnasium's registry."""
    logger = logging.getLogger("ray.rllib")
    level, num_threads = logger.level, torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    cudnn = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    logger.setLevel(logging.ERROR)
    # Networks this small run slower on several threads, and their sums in another order.
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(num_threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        gym.registry.pop(RLLIB_WORLD_ID, None)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        logger.setLevel(level)
