"""Where a model lies: a local folder, or the Hub's cache, pinned by commit.

Only safetensors weights, configuration and tokenizer are fetched; Python code only where the
configuration allows it.
"""

import json
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from trialign_ray.config_models import ModelConfig
from trialign_ray.errors import ConfigError, DataError, UnreachableModel

SHIPPED_BASE = Path(__file__).parent.parent / "envs" / "truthworld" / "lm"
"""TruthWorld's tiny language model."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
FETCHED = ("*.safetensors", "*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")
NOT_FETCHED = ("*/*", "consolidated*", "training_args*")
"""Subfolders hold other formats (onnx, original); consolidated files hold the weights twice."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def resolve_model(name: str, options: ModelConfig) -> Path:
    """The local folder of a model, downloaded into the Hub's cache if it is not there yet.

    Args: name: `truthworld`, a folder, or `org/name` on the Hub; `org/name@revision` pins this one
        model, `options.revision` all models of the Hub that are not pinned by themselves.
    Raises: ConfigError if there is no such model or revision; UnreachableModel if the Hub does not
        give it; DataError if weights (safetensors), tokenizer or chat template are missing.
    """
    if name == "truthworld":
        return SHIPPED_BASE
    local = Path(name).expanduser()
    if local.is_dir():
        if options.revision is not None:
            raise ConfigError(
                f"model.revision is {options.revision!r}, but {name} is a local folder, which has "
                "no revisions; pin a model of the Hub as org/name@revision and leave "
                "model.revision out"
            )
        folder = local.resolve()
    elif HUB_NAME.fullmatch(name):
        folder = _from_hub(name, options)
    else:
        raise ConfigError(
            f"there is no model folder {name}, and it is not a name on the Hub either "
            "(org/name, e.g. Qwen/Qwen2.5-1.5B-Instruct)"
        )
    require_model_files(folder, options)
    return folder


def model_commit(folder: Path) -> str | None:
    """The commit of a folder of the Hub's cache; None for any other folder."""
    in_cache = folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name)
    return folder.name if in_cache else None


def require_model_files(folder: Path, options: ModelConfig) -> None:
    """Raises: DataError naming what the folder of a model lacks."""
    _require_weights(folder)
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} holds no config.json; it is not a Hugging Face model's folder")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise DataError(
            f"{folder} holds no tokenizer ({', '.join(TOKENIZER_FILES[:3])}, ..); save the model's "
            "tokenizer there with save_pretrained"
        )
    if options.chat_template is None and not _has_chat_template(folder):
        raise DataError(
            f"the tokenizer of {folder} has no chat template; add chat_template.jinja, or name a "
            "jinja file as model.chat_template"
        )


def saved_dtype(folder: Path) -> str | None:
    """The dtype of most of the saved weights' bytes, as torch calls it; None if it is not one that
    the configuration knows (quantised weights). config.json is not asked: it may name another."""
    size = Counter()
    for file in sorted(folder.glob("*.safetensors")):
        for tensor in safetensors_header(file).values():
            start, end = tensor["data_offsets"]
            size[tensor["dtype"]] += end - start
    return DTYPES.get(size.most_common(1)[0][0]) if size else None


def safetensors_header(file: Path) -> dict[str, Any]:
    """Name -> dtype, shape and offsets of a file's tensors. Raises: DataError if it is damaged."""
    try:
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > file.stat().st_size:
                raise ValueError(f"its header of {length} bytes is longer than the file")
            header = json.loads(handle.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise DataError(
            f"{file} is not a whole safetensors file ({error}); fetch it again"
        ) from error
    header.pop("__metadata__", None)
    return header


def _require_weights(folder: Path) -> None:
    if not list(folder.glob("*.safetensors")):
        raise DataError(
            f"{folder} holds no .safetensors weights; give the folder of a Hugging Face model "
            "saved with save_pretrained (pickled weights are refused)"
        )
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(shards)} weight files, first {missing[0]}; "
            "fetch the model again"
        )


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return False
    return bool(json.loads(file.read_text(encoding="utf-8")).get("chat_template"))


def _from_hub(name: str, options: ModelConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, pinned = name.partition("@")
    revision = pinned or options.revision
    code = ("*.py",) if options.trust_remote_code else ()
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[*FETCHED, *code],
            ignore_patterns=list(NOT_FETCHED),
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UnreachableModel(_why_not(repository, revision, error)) from error
    return Path(folder).resolve()


def _why_not(repository: str, revision: str | None, error: Exception) -> str:
    """One sentence on a failed download, and what to do. Errors' own texts may hold addresses with
    tokens, so they are named by their kind."""
    from huggingface_hub import errors

    at = f"{repository} at revision {revision}" if revision else repository
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    if isinstance(cause, errors.GatedRepoError):
        return f"{at} is gated; accept its terms on the Hub and set HF_TOKEN in the environment"
    if isinstance(cause, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision!r}; give a commit, tag or branch of it"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return (
            f"there is no model {repository} on the Hub (nor a folder of that name), or it is "
            "private: check the spelling, or set HF_TOKEN in the environment"
        )
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return (
            f"{at} is not whole in the local cache, and HF_HUB_OFFLINE forbids to ask the Hub; "
            "unset it, or give the folder of a model"
        )
    status = getattr(getattr(cause, "response", None), "status_code", None)
    said = f"it answers {status}" if status else type(cause or error).__name__
    return (
        f"{at} is not whole in the local cache, and the Hub cannot be asked ({said}); try again "
        "with a network, or give the folder of a model"
    )
