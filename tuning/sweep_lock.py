"""One driver per sweep: two would write the same state, and train the same trials twice."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envs.errors import ConfigError
from trialign_ray.run_cache import try_lock

LOCK_FILE = ".lock"


@contextmanager
def sole_driver(root: Path) -> Iterator[None]:
    """Holds the sweep in `root`, a folder that exists, until this process leaves or ends.

    Raises: ConfigError, at once, naming process and machine, if another driver holds it. A file
    system without locks holds nobody off, which a warning says.
    """
    path = root / LOCK_FILE
    with path.open("a+", encoding="utf-8") as file:
        if not try_lock(file):
            raise ConfigError(
                f"{root} is being run by {_holder(path)}; wait until it has ended, or end it, and "
                "go on with --resume, or choose another --run-dir"
            )
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        yield


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return f"process {said['pid']} on {said['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has not written who it is yet
        return "another process"
