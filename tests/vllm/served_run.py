"""`trialign serve RUN` as a child process, at a port of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STARTS_WITHIN_S = 400


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The server's url up to /v1, as it says itself. It must end in peace when it is told to.

    What it prints goes into a file: nobody reads a pipe to its end, and a full one stops it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    small = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    command = [sys.executable, "-m", "trialign_ray", "serve", str(run), "--port", str(port)]
    log = run / "serve.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [*command, "--timeout", str(STARTS_WITHIN_S)],
            env={**os.environ, **small, "VLLM_DO_NOT_TRACK": "1"},
            stdout=out,
        )
    try:
        yield _url(child, log)
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0


def _url(child: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + STARTS_WITHIN_S + 20
    while time.monotonic() < deadline and child.poll() is None:
        if found := re.search(r"^serving .* at (\S+/v1)$", log.read_text(), re.MULTILINE):
            return found[1]
        time.sleep(0.5)
    raise AssertionError(f"the server was not ready:\n{log.read_text()[-3000:]}")
