"""A base with an adapter's weights added to its own, as a model by itself."""

from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def write_merged(
    base: Path, adapter: Path, out: Path, template: Path | None, trust_remote_code: bool = False
) -> None:
    """Writes base + adapter into `out`, in the base's own dtype, with its tokenizer.

    The base is loaded anew, so that no model that others use is changed. Sums are rounded to the
    base's dtype: in bfloat16 a merged model's answers may differ from the adapter's.
    Args: template: Jinja file of a chat template for a tokenizer that has none.
    """
    local = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True, **local)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    tokenizer = AutoTokenizer.from_pretrained(base, **local)
    if template is not None:
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
