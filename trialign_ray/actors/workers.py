"""Workers: the same calls with Ray actors and without Ray.

The recipe talks to `Workers` alone. `LocalWorkers` runs everything in this process, for debugging
and unit tests; `RayWorkers` gives every group and the critic-learner an actor of its own.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

from trialign_ray.actors.critic_learner import CriticLearner, CriticSpec
from trialign_ray.actors.group_agent import GroupAgent, GroupAgentSpec
from trialign_ray.actors.placement import Reservation
from trialign_ray.config_sections import ResourcesConfig
from trialign_ray.errors import TrialignError, WorkerError

logger = logging.getLogger(__name__)
REPLAY_WAIT_S = 1.0
NAME_TIMEOUT_S = 30.0


class Workers(Protocol):
    """One agent per group, and one critic-learner."""

    groups: tuple[str, ...]

    def on_groups(self, verb: str, arguments: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Calls `verb` on each named group's agent, all at once; results by group."""
        ...

    def on_critic(self, verb: str, *arguments: Any) -> Any:
        """Calls `verb` on the critic-learner."""
        ...

    def close(self) -> None:
        """Ends what was started."""
        ...


class LocalWorkers:
    """Everything in this process, one call after the other."""

    def __init__(self, agents: Sequence[GroupAgentSpec], critic: CriticSpec):
        self.groups = tuple(a.group for a in agents)
        self._agents = {a.group: GroupAgent(a) for a in agents}
        self._critic = CriticLearner(critic)

    def on_groups(self, verb: str, arguments: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        return {g: getattr(self._agents[g], verb)(*args) for g, args in arguments.items()}

    def on_critic(self, verb: str, *arguments: Any) -> Any:
        return getattr(self._critic, verb)(*arguments)

    def close(self) -> None:
        self._agents.clear()


class RayWorkers:
    """Named actors in one placement group; a dead actor comes back and its call is replayed.

    Args: run_name: actors are named `trialign/<run>/group-<g>` and `trialign/<run>/critic`.
    reservation: a bundle for each agent, and one for the critic-learner.
    """

    def __init__(self, run_name: str, resources: ResourcesConfig, reservation: Reservation):
        self.groups: tuple[str, ...] = ()
        self._resources = resources
        self._run_name = run_name
        self._reservation = reservation
        self._actors: dict[str, Any] = {}
        self._critic: Any = None

    def start(self, agents: Sequence[GroupAgentSpec], critic: CriticSpec) -> None:
        """Starts all actors. Raises: WorkerError if a name is taken; `close` then ends those that
        were started."""
        self.groups = tuple(a.group for a in agents)
        for i, agent in enumerate(agents):
            name = f"group-{agent.group}"
            self._actors[agent.group] = self._start(GroupAgent, agent, name, i)
        self._critic = self._start(CriticLearner, critic, "critic", len(agents))

    def _start(self, kind: type, spec: Any, name: str, bundle: int) -> Any:
        import ray

        is_group = kind is GroupAgent
        remote = ray.remote(kind)
        full_name = f"trialign/{self._run_name}/{name}"
        _await_free_name(full_name)
        return remote.options(
            name=full_name,
            num_cpus=self._resources.cpus_per_group if is_group else self._resources.cpus_critic,
            num_gpus=self._resources.gpus_per_group if is_group else 0,
            max_restarts=self._resources.max_restarts,
            max_task_retries=0,
            scheduling_strategy=self._reservation.strategy(bundle),
        ).remote(spec)

    def on_groups(self, verb: str, arguments: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        calls = {g: (self._actors[g], f"group {g}", args) for g, args in arguments.items()}
        return self._call(verb, calls)

    def on_critic(self, verb: str, *arguments: Any) -> Any:
        return self._call(verb, {"critic": (self._critic, "the critic-learner", arguments)})[
            "critic"
        ]

    def _call(
        self, verb: str, calls: dict[str, tuple[Any, str, tuple[Any, ...]]]
    ) -> dict[str, Any]:
        """Calls all, then waits; a call whose actor died is made again, since verbs are idempotent.

        Raises: the verb's own TrialignError, or WorkerError when Ray gives an actor up (after
        `max_restarts` deaths) or when no answer came within `timeout_s`.
        """
        import ray
        from ray.exceptions import (
            ActorDiedError,
            ActorUnavailableError,
            GetTimeoutError,
            RayTaskError,
        )

        pending = {k: getattr(a, verb).remote(*args) for k, (a, _, args) in calls.items()}
        deadline = time.monotonic() + self._resources.timeout_s
        results: dict[str, Any] = {}
        while pending:
            key, reference = next(iter(pending.items()))
            actor, what, args = calls[key]
            try:
                results[key] = ray.get(reference, timeout=max(0.0, deadline - time.monotonic()))
                del pending[key]
            except GetTimeoutError as error:
                raise WorkerError(self._message(what, verb, "did not answer in time")) from error
            except ActorUnavailableError:
                logger.warning("%s died during %s; it restarts, the call is replayed", what, verb)
                time.sleep(REPLAY_WAIT_S)
                pending[key] = getattr(actor, verb).remote(*args)
            except ActorDiedError as error:
                raise WorkerError(self._message(what, verb, f"is dead: {error}")) from error
            except RayTaskError as error:
                if isinstance(error.cause, TrialignError):
                    raise error.cause from error
                raise WorkerError(self._message(what, verb, f"failed: {error.cause!r}")) from error
        return results

    def _message(self, what: str, verb: str, problem: str) -> str:
        return (
            f"{what} of run {self._run_name} {problem} (call {verb!r}, limit "
            f"{self._resources.timeout_s:g} s); its log is in Ray's session folder under logs/ "
            f"and in the dashboard under the actor's name trialign/{self._run_name}/...; resume "
            "with `trialign train --resume --run-dir RUN`"
        )

    def actor_ids(self) -> dict[str, str]:
        """Ray's id of every actor, by group, and "critic"."""
        handles = {**self._actors, "critic": self._critic}
        return {name: handle._actor_id.hex() for name, handle in handles.items()}

    def close(self) -> None:
        import ray

        for handle in [*self._actors.values(), self._critic]:
            if handle is not None:
                ray.kill(handle, no_restart=True)
        self._reservation.release()


def _await_free_name(name: str) -> None:
    """Waits until no actor has the name: those of a process that was killed live on for a moment.

    Raises: WorkerError if one keeps it.
    """
    import ray

    deadline = time.monotonic() + NAME_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            ray.get_actor(name)
        except ValueError:
            return
        time.sleep(REPLAY_WAIT_S / 10)
    raise WorkerError(
        f"an actor named {name} is alive already: another run of that name goes on; end it, or "
        "choose another --run-dir"
    )
