"""Stage 1, collect: the groups' agents talk, turn by turn, and every utterance is judged at once.

All episodes advance together, so that each group's actor gets one batch per turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from envs.types import Question
from envs.world import AlignmentWorld, WorldSpec
from trialign_ray.actors.workers import Workers
from trialign_ray.config_sections import CollectConfig
from trialign_ray.engines import Decoding, Generation
from trialign_ray.seeds import derive_seed


def collect(
    spec: WorldSpec,
    workers: Workers,
    config: CollectConfig,
    seed: int,
    behaviour_model_id: str,
    on_turn: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Rows of the log (see `dataset.SCHEMA`) for `episodes_per_question` episodes per question."""
    worlds, episodes = [], []
    observations: list[dict[str, str]] = []
    for index, question in enumerate(spec.questions):
        for repeat in range(config.episodes_per_question):
            world = AlignmentWorld(spec)
            first, _ = world.reset(seed=0, options={"question": index})
            worlds.append(world)
            observations.append(first)
            episodes.append((f"{question.id}#{repeat}", question))
    decoding = Decoding(config.temperature, config.max_new_tokens, config.batch_size)
    rows: list[dict[str, Any]] = []
    for turn in range(config.turns):
        said = _speak(workers, observations, decoding, seed, turn)
        spec.judge.prepare(
            [(g, q, said[g][i].text) for i, (_, q) in enumerate(episodes) for g in workers.groups]
        )
        following = []
        for i, (world, (episode_id, question)) in enumerate(zip(worlds, episodes, strict=True)):
            utterances = {g: said[g][i] for g in workers.groups}
            actions = {g: u.text for g, u in utterances.items()}
            after, _, terminateds, _, infos = world.step(actions)
            row = _row(episode_id, turn, question, observations[i], utterances, infos)
            rows.append(
                row
                | {
                    "terminated": terminateds["__all__"],
                    "behaviour_model_id": behaviour_model_id,
                }
            )
            following.append(after)
        observations = following
        if on_turn is not None:
            on_turn(turn)
    rows.sort(key=lambda r: (r["episode_id"], r["turn"]))
    return rows


def _speak(
    workers: Workers,
    observations: Sequence[dict[str, str]],
    decoding: Decoding,
    seed: int,
    turn: int,
) -> dict[str, list[Generation]]:
    return workers.on_groups(
        "generate",
        {
            g: (
                "behaviour",
                [o[g] for o in observations],
                replace(decoding, seed=derive_seed(seed, "collect", g, turn)),
            )
            for g in workers.groups
        },
    )


def _row(
    episode_id: str,
    turn: int,
    question: Question,
    observation: dict[str, str],
    utterances: dict[str, Generation],
    infos: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    groups = list(utterances)
    judged = [infos[g]["judgement"] for g in groups]
    return {
        "episode_id": episode_id,
        "turn": turn,
        "question_id": question.id,
        "kind": question.kind,
        "split": question.split,
        "source": question.source,
        "gold_visible": question.gold_visible,
        "group_ids": groups,
        "present": [True] * len(groups),
        "prompt_text": [observation[g] for g in groups],
        "action_text": [utterances[g].text for g in groups],
        "action_token_ids": [list(utterances[g].token_ids) for g in groups],
        "behaviour_logprob": [utterances[g].logprob for g in groups],
        "parsed_answer": [j.parsed_answer for j in judged],
        "r_truth": [j.truth for j in judged],
        "r_pers": [j.personalization for j in judged],
        "truncated": [utterances[g].truncated for g in groups],
        "visible_peers": [infos[g]["visible_peers"] for g in groups],
    }
