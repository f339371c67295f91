"""Generation for collection by Ray Data: replicas of vLLM over the cluster, for one call at a time.

Ray Data starts its replicas for every call and ends them after it, so this pays for large logs.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from trialign_ray.engines import Decoding, Generation
from trialign_ray.errors import ConfigError, WorkerError

if TYPE_CHECKING:
    from trialign_ray.actors.engine_hosts import EngineSpec


class RayDataHost:
    """Utterances of the behaviour model; adapters and other models stay with the groups' agents."""

    collection_only = True

    def __init__(self, spec: "EngineSpec"):
        from trialign_ray.language_model import load_tokenizer

        self._spec = spec
        self._tokenizer = load_tokenizer(Path(spec.models["behaviour"]), spec.model)

    def serves(self, model: str) -> bool:
        models = self._spec.models
        return model != "aligned" and models.get(model) == models["behaviour"]

    def generate(
        self, model: str, calls: Mapping[str, tuple[list[str], Decoding]]
    ) -> dict[str, list[Generation]]:
        """Utterances by group; all groups' prompts are one dataset.

        Raises: ConfigError if the cluster has too little for the replicas, or without ray[llm];
        WorkerError if it fails or does not end within `timeout_s`.
        """
        rows = [
            row
            for prompts, decoding in calls.values()
            for row in request_rows(prompts, decoding, self._tokenizer)
        ]
        numbered = [row | {"index": i} for i, row in enumerate(rows)]
        answers = self._run(numbered, max(d.batch_size for _, d in calls.values()))
        by_index = {row["index"]: row for row in answers}
        if len(by_index) != len(rows):
            raise WorkerError(
                f"Ray Data answered {len(by_index)} of {len(rows)} prompts of run "
                f"{self._spec.run_name}; its log in Ray's session folder says which failed"
            )
        ends = frozenset(rows[0]["sampling_params"]["stop_token_ids"]) if rows else frozenset()
        said = iter([self._utterance(by_index[i], ends) for i in range(len(rows))])
        return {group: [next(said) for _ in prompts] for group, (prompts, _) in calls.items()}

    def close(self) -> None:
        """Replicas end with every call."""

    def _run(self, rows: list[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        if not rows:
            return []
        self._require_resources()
        processor = build(self._spec, batch_size)
        import ray

        def all_rows() -> list[dict[str, Any]]:
            return processor(ray.data.from_items(rows)).take_all()

        return _within(self._spec.timeout_s, all_rows, self._spec)

    def _require_resources(self) -> None:
        """Ray Data would wait for ever for what the cluster does not have."""
        import ray

        options, there = self._spec.options, ray.cluster_resources()
        for name, each in (("CPU", options.cpus), ("GPU", options.gpus)):
            if each > there.get(name, 0.0) + 1e-9:
                raise ConfigError(
                    f"a replica of vLLM asks for {each:g} {name}, the cluster has "
                    f"{there.get(name, 0.0):g}; lower engine.{name.lower()}s"
                )

    def _utterance(self, row: dict[str, Any], ends: frozenset[int]) -> Generation:
        from trialign_ray.engines.utterances import spoken_text

        ids = tuple(int(i) for i in row["token_ids"])
        truncated = not ids or ids[-1] not in ends
        return Generation(spoken_text(self._tokenizer, ids), ids, float(row["logprob"]), truncated)


def request_rows(
    prompts: Sequence[str], decoding: Decoding, tokenizer: Any
) -> list[dict[str, Any]]:
    """One row per prompt, as the vLLM stage wants it: token ids and sampling parameters."""
    from trialign_ray.engines.utterances import prompt_seeds
    from trialign_ray.engines.vllm_arguments import sampling_arguments
    from trialign_ray.language_model import text_ids

    return [
        {
            "tokenized_prompt": text_ids(tokenizer, prompt),
            "sampling_params": sampling_arguments(decoding, seed, tokenizer),
        }
        for prompt, seed in zip(prompts, prompt_seeds(prompts, decoding.seed), strict=True)
    ]


def build(spec: "EngineSpec", batch_size: int) -> Any:
    """The processor: tokens in, tokens and their log-probability out, `concurrency` replicas.

    Raises: ConfigError if ray[llm] or vLLM is missing.
    """
    from trialign_ray.engines.vllm_arguments import engine_arguments

    try:
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig
    except ImportError as error:
        raise ConfigError(
            f"ray.data.llm cannot be imported ({error}); pip install 'trialign-ray[vllm]', or set "
            "engine.kind=transformers"
        ) from error
    options = spec.options
    bundle = {"CPU": options.cpus} | ({"GPU": options.gpus} if options.gpus else {})
    threads = str(max(1, math.floor(options.cpus)))
    config = vLLMEngineProcessorConfig(
        model_source=spec.models["behaviour"],
        engine_kwargs=engine_arguments(options, spec.model),
        batch_size=batch_size,
        concurrency=(1, options.concurrency),
        placement_group_config={"bundles": [bundle]},
        runtime_env={
            "env_vars": {
                "OMP_NUM_THREADS": threads,
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_DO_NOT_TRACK": "1",
            }
        },
        log_engine_metrics=False,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
    return build_processor(config, preprocess=_same, postprocess=_answer)


def _same(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    """The index, the tokens, and the sum of their log-probabilities."""
    ids = [int(i) for i in row["generated_tokens"]]
    told = [{int(k): v for k, v in at.items() if v is not None} for at in row["logprobs"]]
    logprob = sum(float(at[i]["logprob"]) for at, i in zip(told, ids, strict=True))
    return {"index": row["index"], "token_ids": ids, "logprob": logprob}


def _within(limit_s: float, call: Any, spec: "EngineSpec") -> Any:
    """`call()`, waited for at most so long, since Ray Data itself knows no limit."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(limit_s)
    except NotInTime as error:
        raise WorkerError(
            f"Ray Data did not answer run {spec.run_name} within {limit_s:g} s; raise "
            "resources.timeout_s, or lower engine.concurrency if replicas wait for resources"
        ) from error
    except Exception as error:
        raise WorkerError(f"Ray Data failed in run {spec.run_name}: {error}") from error
