"""Serving: the command that vLLM is given, the child process, and Ray Serve's configuration."""

import ast
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import torch
import yaml

from tests.trialign_ray.finished_run import copied, finished_run
from trialign_ray.errors import ConfigError, DataError, WorkerError
from trialign_ray.run_models import RunBase
from trialign_ray.serve import local_url, require_free, serve, serves_on_cpu, vllm_program
from trialign_ray.serve_plan import (
    ClusterOptions,
    ServePlan,
    example_request,
    ray_serve_config,
    serve_plan,
    shown,
    vllm_command,
    vllm_rank,
    write_ray_serve,
)

FAKE = """
import http.server, json, os, signal, sys, time
ways = os.environ.get("FAKE_VLLM", "")
if ways == "dies":
    sys.exit(3)
if ways == "hangs":
    time.sleep(60)
port = int(sys.argv[sys.argv.index("--port") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *args): pass
def stop(number, frame):
    print("stopped by", number, flush=True)
    if ways != "stubborn":
        sys.exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print(json.dumps(sys.argv[1:]), flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
"""A server in vLLM's place: it answers /health, and says what it was given and what stopped it."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory)


@pytest.fixture
def plan(finished) -> ServePlan:
    return serve_plan(finished[0], finished[1])


@pytest.fixture
def fake(tmp_path) -> list[str]:
    program = tmp_path / "fake_vllm.py"
    program.write_text(FAKE)
    return [sys.executable, str(program)]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_command_gives_vllm_the_base_and_every_groups_adapter(finished, plan):
    run, _ = finished
    command = vllm_command(plan, port=8123)
    assert command[:3] == ["vllm", "serve", str(plan.base.folder)]
    modules = command[command.index("--lora-modules") + 1 :]
    assert modules == [f"{g}={run.adapter_dir(g)}" for g in ("amber", "birch")]
    options = dict(zip(command[3::2], command[4::2], strict=False))
    assert options["--port"] == "8123"
    assert options["--dtype"] == "float32", "vLLM's auto would round the base to 16 bits"
    assert "--max-model-len" not in command, "the model's own limit holds"
    neutral = json.loads(options["--override-generation-config"])
    assert neutral["repetition_penalty"] == 1.0
    after = command[command.index("--enable-lora") + 1 :]
    assert after[:4] == ["--max-lora-rank", "16", "--max-loras", "3"], "own 8 and common 4 make 12"


@pytest.mark.parametrize(("rank", "told"), [(1, 8), (8, 8), (9, 16), (65, 128), (512, 512)])
def test_the_rank_is_the_smallest_that_vllm_takes_and_that_fits(rank, told):
    assert vllm_rank({"a": 1, "b": rank}) == told


def test_a_rank_that_vllm_does_not_take_is_refused():
    with pytest.raises(ConfigError, match="adapter of b has rank 513"):
        vllm_rank({"a": 8, "b": 513})


def test_a_model_of_the_hub_is_served_at_its_commit_with_the_configured_limits(finished, tmp_path):
    run, config = finished
    template = tmp_path / "own.jinja"
    template.write_text("{% if enable_thinking %}think{% endif %}{{ messages }}")
    update = {"chat_template": str(template), "max_length": 2048, "dtype": "bfloat16"}
    changed = config.model_copy(update={"model": config.model.model_copy(update=update)})
    plan = serve_plan(run, changed)
    hub = RunBase(plan.base.folder, "Qwen/Qwen2.5-1.5B-Instruct", True, "abc")
    command = vllm_command(ServePlan(**{**vars(plan), "base": hub}))
    text = " ".join(command)
    assert command[2] == "Qwen/Qwen2.5-1.5B-Instruct"
    for expected in ("--revision abc", "--max-model-len 2048", f"--chat-template {template}"):
        assert expected in text
    assert '--default-chat-template-kwargs {"enable_thinking": false}' in text
    assert "--dtype bfloat16" in text


def test_the_command_shown_is_one_that_a_shell_reads_back(plan):
    import shlex

    command = vllm_command(plan)
    assert shlex.split(shown(command).replace("\\\n", " ")) == command
    request = shlex.split(example_request("http://127.0.0.1:8000", "amber"))
    assert json.loads(request[-1])["model"] == "amber"


def test_on_a_cpu_prompts_are_not_split(plan):
    """vLLM 0.32's engine for CPUs ends at the seeded request whose prompt it has split."""
    assert "--no-enable-chunked-prefill" not in vllm_command(plan)
    on_cpu = vllm_command(plan, on_cpu=True)
    assert "--no-enable-chunked-prefill" in on_cpu
    assert on_cpu[on_cpu.index("--lora-modules") :] == vllm_command(plan)[-3:]


def test_without_vllm_here_the_command_is_for_another_machine(monkeypatch):
    monkeypatch.setattr("trialign_ray.serve.vllm_program", not_installed)
    assert not serves_on_cpu()
    monkeypatch.setattr("trialign_ray.serve.vllm_program", lambda: ["vllm", "serve"])
    assert serves_on_cpu() == (not torch.cuda.is_available())


def not_installed():
    raise ConfigError("vllm is not installed here")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("fe80::1", "http://[fe80::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_a_server_is_reached_where_it_listens_whatever_kind_of_address(host, url):
    assert local_url(host, 8000) == url


def test_a_taken_port_is_found_at_addresses_of_version_6_too():
    with socket.socket(socket.AF_INET6) as taken:
        try:
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no address of version 6")
        port = taken.getsockname()[1]
        taken.listen()
        with pytest.raises(ConfigError, match=f"::1:{port} cannot be listened at"):
            require_free("::1", port)
    require_free("::1", port)


def test_a_host_that_does_not_exist_is_named(port):
    with pytest.raises(ConfigError, match=r"no\.such\.host\.invalid:\d+ cannot be listened at"):
        require_free("no.such.host.invalid", port)


def test_a_path_with_a_comma_is_told_as_json(plan, tmp_path):
    odd = ServePlan(**{**vars(plan), "adapters": {"amber": Path("/x,y/amber")}})
    assert json.loads(vllm_command(odd)[-1]) == {"name": "amber", "path": "/x,y/amber"}


def test_an_adapter_that_was_changed_is_not_served(finished, tmp_path):
    run, config = finished
    changed = copied(run, tmp_path / "run")
    (changed.adapter_dir("amber") / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="the training exported"):
        serve_plan(changed, config)
    assert serve_plan(changed, config, ["birch"]).adapters.keys() == {"birch"}


def test_the_server_is_ready_when_it_answers_and_ends_when_it_is_told_to(plan, fake, port, capfd):
    urls = []

    def ready(url: str) -> None:
        urls.append(url)
        with urllib.request.urlopen(f"{url}/health") as response:
            assert response.status == 200
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()

    before = signal.getsignal(signal.SIGTERM)
    code = serve(vllm_command(plan, port=port), "127.0.0.1", port, ready, 20, fake)
    assert code == 0 and urls == [f"http://127.0.0.1:{port}"]
    out = capfd.readouterr().out.splitlines()
    assert json.loads(out[0])[0] == str(plan.base.folder) and out[1] == "stopped by 15"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_server_that_dies_or_hangs_is_an_error_and_leaves_nothing_behind(
    plan, fake, port, monkeypatch
):
    command = vllm_command(plan, port=port)
    monkeypatch.setenv("FAKE_VLLM", "dies")
    with pytest.raises(WorkerError, match="ended with exit code 3 before it answered"):
        serve(command, "127.0.0.1", port, print, 20, fake)
    monkeypatch.setenv("FAKE_VLLM", "hangs")
    started = time.monotonic()
    with pytest.raises(WorkerError, match="within 1 s"):
        serve(command, "127.0.0.1", port, print, 1, fake)
    assert time.monotonic() - started < 15
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert fake[1] not in left


def test_a_server_that_does_not_end_when_it_is_told_to_is_killed(plan, fake, port, monkeypatch):
    monkeypatch.setenv("FAKE_VLLM", "stubborn")
    monkeypatch.setattr("trialign_ray.serve.GRACE_S", 0.5)

    def ready(url: str) -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()

    assert serve(vllm_command(plan, port=port), "127.0.0.1", port, ready, 20, fake) == 0
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert fake[1] not in left


def test_a_port_that_is_taken_is_named(plan, fake):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be listened at"):
            serve(vllm_command(plan, port=port), "127.0.0.1", port, print, 5, fake)


@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here, and found"
)
def test_without_vllm_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"trialign-ray\[vllm\]"):
        vllm_program()


def test_the_ray_serve_file_names_the_base_the_loras_and_where_they_lie(finished, plan, tmp_path):
    run, _ = finished
    file = tmp_path / "serve.yaml"
    write_ray_serve(run, plan, ClusterOptions("s3://bucket/adapters/", "A10G"), file)
    (application,) = yaml.safe_load(file.read_text())["applications"]
    assert application["import_path"] == "ray.serve.llm:build_openai_app"
    (llm,) = application["args"]["llm_configs"]
    assert llm["lora_config"]["dynamic_lora_loading_path"] == "s3://bucket/adapters"
    assert llm["engine_kwargs"]["max_lora_rank"] == 16 and llm["accelerator_type"] == "A10G"
    name = llm["model_loading_config"]["model_id"]
    assert ":" not in name and f"{name}:amber, {name}:birch" in file.read_text()
    with pytest.raises(ConfigError, match="is there already"):
        write_ray_serve(run, plan, ClusterOptions("s3://bucket"), file)


def test_ray_serve_reads_adapters_from_cloud_storage_alone(finished, plan):
    run, _ = finished
    with pytest.raises(ConfigError, match="loads adapters from s3://"):
        ray_serve_config(run, plan, ClusterOptions("/mnt/adapters"))


def llm_configuration(finished, plan) -> dict:
    text = ray_serve_config(finished[0], plan, ClusterOptions("gs://bucket/x", "L4"))
    return yaml.safe_load(text)["applications"][0]["args"]["llm_configs"][0]


def ray_fields() -> dict[str, set[str]]:
    """Fields of Ray's own configuration classes, from their source: importing them takes vLLM's
    server packages."""
    found = importlib.util.find_spec("ray")
    assert found is not None and found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0])
    source = folder / "llm" / "_internal" / "serve" / "core" / "configs" / "llm_config.py"
    return {
        node.name: {s.target.id for s in node.body if isinstance(s, ast.AnnAssign)}  # type: ignore
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ClassDef)
    }


def test_every_key_of_the_ray_serve_file_is_a_field_of_rays_own_classes(finished, plan):
    fields, llm = ray_fields(), llm_configuration(finished, plan)
    assert llm.keys() <= fields["LLMConfig"]
    assert llm["lora_config"].keys() <= fields["LoraConfig"]
    assert llm["model_loading_config"].keys() <= fields["ModelLoadingConfig"]


def test_ray_itself_accepts_the_configuration(finished, plan):
    try:
        from ray.llm._internal.serve.core.configs.llm_config import LLMConfig, LoraConfig
    except ImportError as error:
        pytest.skip(f"Ray Serve's own packages are not installed: {error}")
    llm = LLMConfig.model_validate(llm_configuration(finished, plan))
    assert isinstance(llm.lora_config, LoraConfig)
    assert llm.lora_config.max_num_adapters_per_replica == 2
