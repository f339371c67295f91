"""What happens around a sweep while Ray Tune runs it: progress, interruption, stalls, and whether
all actors are gone at the end."""

import os
import signal
import threading
import time
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Literal

from envs.errors import DataError
from trialign_ray.run import Progress
from trialign_ray.run_trial import WorkerError
from tuning.sweep_plan import TRIAL_FILE, read_records, trials_dir
from tuning.trial_folder import SweepFolder

POLL_S = 1.0
GONE_TIMEOUT_S = 60.0
STAGE = "trials"


class SweepWatch:
    """A thread beside Tune. `ended_by`: why the sweep was ended before it was done, None if it was
    not. Tune itself then writes its state and stops its trials, so that it can be restored.

    The first interrupt (Ctrl-C) ends the sweep in order, a second one at once.
    """

    def __init__(self, folder: SweepFolder, progress: Progress, num_trials: int, stall_s: float):
        self._folder, self._progress = folder, progress
        self._num_trials, self._stall_s = num_trials, stall_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._handler: object = None
        self._in_main = threading.current_thread() is threading.main_thread()
        self.ended_by: Literal["interrupt", "stall"] | None = None

    def __enter__(self) -> "SweepWatch":
        if self._in_main:
            self._handler = signal.signal(signal.SIGINT, self._interrupted)
        self._progress.display.start(STAGE, self._num_trials)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._in_main:
            signal.signal(signal.SIGINT, self._handler or signal.default_int_handler)  # type: ignore
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self._show()
        self._progress.display.finish(STAGE, self.ended_by or "all ended")

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._handler or signal.default_int_handler)  # type: ignore
        self.ended_by = "interrupt"
        if not _end_tune():  # Tune is not there yet: nothing to save
            raise KeyboardInterrupt

    def _watch(self) -> None:
        changed_at, newest = time.monotonic(), self._newest()
        while not self._over.wait(POLL_S):
            self._show()
            if (now := self._newest()) != newest:
                changed_at, newest = time.monotonic(), now
            if time.monotonic() - changed_at > self._stall_s and self.ended_by is None:
                self.ended_by = "stall"
                _end_tune()

    def _newest(self) -> float:
        """When a trial last told anything."""
        root = trials_dir(self._folder.root)
        files = [*root.glob(f"*/{TRIAL_FILE}"), *root.glob("*/metrics.jsonl")]
        return max((_modified(path) for path in files), default=0.0)

    def _show(self) -> None:
        try:
            records = read_records(self._folder.root)
        except DataError:  # a trial begins its folder anew just now
            return
        ended = sum(r.status in ("done", "failed") for r in records)
        self._progress.display.advance(STAGE, ended, f"{len(records)} begun")


def _modified(path: os.PathLike[str]) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:  # as above
        return 0.0


def _end_tune() -> bool:
    """Tells Tune to save its state and stop; False if it does not listen (yet)."""
    if not callable(signal.getsignal(signal.SIGUSR1)):
        return False
    os.kill(os.getpid(), signal.SIGUSR1)
    return True


def living_actors(trial_ids: Iterable[str]) -> list[str]:
    """Names of actors of those trials that are still alive, in this process's namespace."""
    import ray
    from ray.util import list_named_actors

    here = ray.get_runtime_context().namespace
    prefixes = tuple(f"trialign/{trial_id}/" for trial_id in trial_ids)
    named: list[Any] = list_named_actors(all_namespaces=True)  # dicts, where Ray says strings
    return [a["name"] for a in named if a["namespace"] == here and a["name"].startswith(prefixes)]


def require_no_actors(trial_ids: Iterable[str]) -> None:
    """Waits until all actors of those trials are gone, ends what is left.

    Raises: WorkerError if some live on even so.
    """
    import ray

    ids = list(trial_ids)
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while left := living_actors(ids):
        if time.monotonic() > deadline:
            raise WorkerError(
                f"{len(left)} actors of trials live on after the sweep: {', '.join(left[:5])}; end "
                "them with `ray stop`, or in the dashboard"
            )
        if time.monotonic() > deadline - GONE_TIMEOUT_S / 2:
            for name in left:
                ray.kill(ray.get_actor(name), no_restart=True)
        time.sleep(POLL_S / 5)
