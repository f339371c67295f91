"""Ray Train's TorchTrainer around `supervised.fit_supervised`."""

import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trialign_ray.errors import WorkerError
from trialign_ray.supervised_settings import SupervisedSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SupervisedJob:
    """One fitting job, as the workers get it: paths and numbers only.

    model_dir: model to start from. dialogues_file: JSONL of {"messages", "num_learned"}. out_dir:
    where rank 0 saves the result.
    """

    model_dir: str
    dialogues_file: str
    out_dir: str
    progress_file: str
    settings: SupervisedSettings
    num_threads: int


def run_supervised(
    job: SupervisedJob,
    num_workers: int,
    storage_dir: Path,
    on_step: Callable[[int, int, float], None] | None = None,
) -> None:
    """Runs the job on `num_workers` data-parallel workers and waits for it.

    Args: on_step: called now and then with (step, number of steps, loss).
    Raises: WorkerError if a worker failed; its own message is included.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _train_loop,
        train_loop_config=asdict(job),
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_workers, resources_per_worker={"CPU": 0.5}, use_gpu=False
        ),
        run_config=RunConfig(
            name="supervised",
            storage_path=str(storage_dir),
            failure_config=FailureConfig(max_failures=1),
        ),
    )
    try:
        with _own_interrupts(), _following(Path(job.progress_file), on_step):
            trainer.fit()
    except Exception as error:
        raise WorkerError(f"fitting {job.out_dir} failed: {error}") from error
    if not (Path(job.out_dir) / "model.safetensors").is_file():
        raise WorkerError(f"fitting {job.out_dir} ended without a model; see {storage_dir}")


def fit_here(job: SupervisedJob, on_step: Callable[[int, int, float], None] | None = None) -> None:
    """Runs the job in this process, without Ray: for small models, or inside a Ray task."""
    _fit(job, 0, 1, on_step)


def _train_loop(config: dict[str, Any]) -> None:
    from ray import train

    settings = SupervisedSettings(**config["settings"])
    job = SupervisedJob(**{**config, "settings": settings})
    context = train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    on_step = _progress_writer(job.progress_file) if rank == 0 else None
    train.report({"loss": _fit(job, rank, world_size, on_step)})


def _fit(
    job: SupervisedJob,
    rank: int,
    world_size: int,
    on_step: Callable[[int, int, float], None] | None,
) -> float:
    import torch

    from trialign_ray.language_model import load_language_model, save_language_model
    from trialign_ray.supervised import encode_dialogue, fit_supervised

    torch.set_num_threads(job.num_threads)
    base = load_language_model(Path(job.model_dir))
    with open(job.dialogues_file, encoding="utf-8") as file:
        dialogues = [json.loads(line) for line in file]
    rows = [encode_dialogue(base.tokenizer, d["messages"], d["num_learned"]) for d in dialogues]
    loss = fit_supervised(
        base.model,
        rows,
        base.tokenizer.pad_token_id,
        job.settings,
        rank,
        world_size,
        _all_reduce_gradients if world_size > 1 else None,
        on_step,
    )
    if rank == 0:
        save_language_model(base.model, base.tokenizer, Path(job.out_dir))
    return loss


def _progress_writer(path: str) -> Callable[[int, int, float], None]:
    """Writes step and loss to a file that the driver's progress bar reads."""

    def write(step: int, steps: int, loss: float) -> None:
        if step % 10 == 0 or step + 1 == steps:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step + 1, "steps": steps, "loss": loss}) + "\n")

    return write


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Puts the interrupt handler back that Ray Train replaces and never restores.

    Without this, Ctrl-C would be swallowed for the rest of the process. An interrupt during the
    body arrives as KeyboardInterrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _following(path: Path, on_step: Callable[[int, int, float], None] | None) -> Iterator[None]:
    """Reads the progress file in the background for as long as the body runs."""
    if on_step is None:
        yield
        return
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(1.0):
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
            if lines:
                last = json.loads(lines[-1])
                on_step(last["step"], last["steps"], last["loss"])

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _all_reduce_gradients(model: Any) -> None:
    import torch.distributed as dist

    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
