"""Models come from a folder or from the Hub (one on the loopback interface), pinned by commit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tests.trialign_ray.architectures import save_random
from tests.trialign_ray.local_hub import COMMIT, LocalHub
from trialign_ray.config_models import ModelConfig
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.language_model import load_language_model
from trialign_ray.model_source import model_commit, resolve_model, saved_dtype

NAME = "some-lab/tiny-model"


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_random(tmp_path / "model", "qwen2")


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The folder on a loopback Hub, beside files that nobody needs; an empty cache."""
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_own.py").write_text("print('run')")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"other")
    served = LocalHub(NAME, folder)
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    address = served.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    _offline(monkeypatch, False)
    yield served
    served.close()


def _offline(monkeypatch, value):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", value)


def test_a_local_folder_is_taken_as_it_is(folder):
    assert resolve_model(str(folder), ModelConfig()) == folder
    assert model_commit(folder) is None


def test_a_revision_means_nothing_for_a_local_folder(folder):
    with pytest.raises(ConfigError, match=r"model\.revision is 'v2', but .* is a local folder"):
        resolve_model(str(folder), ModelConfig(revision="v2"))


@pytest.mark.parametrize("name", ["no/such/folder", "./nowhere", "nowhere", "/nowhere", "a/b c"])
def test_a_mistyped_path_is_not_sought_on_the_hub(name, hub):
    with pytest.raises(ConfigError, match="no model folder"):
        resolve_model(name, ModelConfig())
    assert hub.fetched == []


@pytest.mark.parametrize("name", [NAME, f"{NAME}@{COMMIT}", f"{NAME}@main"])
def test_a_model_of_the_hub_comes_without_pickle_code_and_other_formats(name, hub):
    found = resolve_model(name, ModelConfig())
    assert model_commit(found) == COMMIT
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(hub.fetched)
    assert not {"pytorch_model.bin", "modeling_own.py"} & set(hub.fetched)
    assert not [f for f in hub.fetched if "/" in f]
    assert load_language_model(found).checksum


def test_code_is_fetched_only_where_it_is_trusted(hub):
    resolve_model(NAME, ModelConfig(trust_remote_code=True))
    assert "modeling_own.py" in hub.fetched


def test_what_is_cached_is_not_fetched_again_nor_is_the_hub_needed(hub, monkeypatch):
    first = resolve_model(NAME, ModelConfig())
    count = len(hub.fetched)
    _offline(monkeypatch, True)
    assert resolve_model(NAME, ModelConfig()) == first
    assert resolve_model(NAME, ModelConfig(revision=COMMIT)) == first
    assert len(hub.fetched) == count


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("some-lab/misspelt", None, "no model some-lab/misspelt on the Hub"),
        (NAME, "v9", "has no revision 'v9'"),
        ("gated/model", None, r"gated/model is gated.*HF_TOKEN"),
        ("broken/model", None, "the Hub cannot be asked"),
    ],
)
def test_what_the_hub_refuses_is_said_plainly(name, revision, message, hub):
    with pytest.raises(ConfigError, match=message):
        resolve_model(name, ModelConfig(revision=revision))


def test_without_network_or_cache_the_error_says_so(hub, monkeypatch):
    hub.close()
    with pytest.raises(ConfigError, match=r"the Hub cannot be asked.*try again with a network"):
        resolve_model(NAME, ModelConfig())
    _offline(monkeypatch, True)
    with pytest.raises(ConfigError, match=r"not whole in the local cache.*HF_HUB_OFFLINE"):
        resolve_model(NAME, ModelConfig())


def test_a_folder_without_tokenizer_config_or_shard_is_named(folder):
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    )
    with pytest.raises(DataError, match=r"lacks 1 of 1 weight files, first model-00001"):
        resolve_model(str(folder), ModelConfig())
    (folder / "model.safetensors.index.json").unlink()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="no tokenizer"):
        resolve_model(str(folder), ModelConfig())
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"no config\.json"):
        resolve_model(str(folder), ModelConfig())


def test_a_model_without_template_takes_one_that_is_given(folder, tmp_path):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match=r"no chat template.*model\.chat_template"):
        resolve_model(str(folder), ModelConfig())
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
    options = ModelConfig(chat_template=str(file))
    assert resolve_model(str(folder), options) == folder
    assert load_language_model(folder, options).tokenizer.chat_template == file.read_text()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_saved_dtype_is_that_of_the_weights_not_of_the_configuration(dtype, folder):
    file = folder / "model.safetensors"
    save_file({k: v.to(dtype) for k, v in load_file(file).items()}, file)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    assert getattr(torch, saved_dtype(folder) or "") == dtype
    base = load_language_model(folder)
    assert {p.dtype for p in base.model.parameters()} == {dtype}


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[}"])
def test_damaged_weights_are_named(content, folder):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.safetensors is not a whole safetensors file"):
        load_language_model(folder)


def test_cut_weights_are_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match="cannot be loaded"):
        load_language_model(folder)


def test_a_model_with_code_of_its_own_is_refused_unless_it_is_trusted(folder, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    config = json.loads((own / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
    }
    (own / "config.json").write_text(json.dumps(config))
    (own / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match=r"Python code of its own.*model\.trust_remote_code"):
        load_language_model(own)
    assert not (tmp_path / "ran").exists()
