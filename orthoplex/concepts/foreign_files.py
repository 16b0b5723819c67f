"""What a safetensors file is that is no concept file, told by its tensors, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orthoplex.files import Header

CHECKPOINT_KEY = "orthoplex_checkpoint"
"""Of the header's text pair that only checkpoints of trainings have."""
_LORA = re.compile(
    r"[._](lora_down|lora_up|lora_A|lora_B|lora_embedding_[AB]|hada_w[12]_[ab]|lokr_w[12](_[ab])?|dora_scale|lora_mid|"
    r"lora\.down|lora\.up|lora_magnitude_vector|oft_blocks|oft_diag|boft_[A-Za-z]|glora_[A-Za-z]|"
    r"[ab][12]|ia3_l)([._]|$)|\.alpha$|\.diff(_b)?$|^lora_(unet|te\d?|transformer)_"
)


_MAKERS = {
    r"hada_w|lokr_w|oft_|glora": "LyCORIS",
    r"^lora_(unet|te\d?|transformer)_": "kohya's sd-scripts",
    r"^base_model\.model\.": "PEFT",
    r"^(diffusion_model|lora_transformer)[._]": "ai-toolkit or ComfyUI",
    r"^(unet|text_encoder|transformer)": "diffusers",
}
"""A pattern of a LoRA's key -> the programs that write it."""
_NOUNS = {
    r"\.diff(_b)?$": "a file of full differences of weights (LyCORIS)",
    r"^lora_\w+\.(on_input|weight)$|\.ia3_l(\.|$)": "an IA3 file (LyCORIS)",
}
"""What every key of a file is like -> what the file is, if it is no LoRA."""
_NETWORKS = re.compile(
    r"^(down_blocks|up_blocks|mid_block|time_embedding|conv_in|text_model|encoder|decoder|transformer_blocks|"
    r"single_transformer_blocks|x_embedder|double_blocks|single_blocks|vision_model|visual|quant_conv|"
    r"post_quant_conv|embeddings|model\.layers)\."
)
_WHOLE = re.compile(r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner|model_ema)\.")


def description(header: Header) -> str | None:
    """Return in words what a file without a manifest is and what to do, as in "is a LoRA of …"; None if unknown.

    Args:
        header: Its header.
    """
    other = other_kind(header)
    if other is not None:
        return other
    names = list(header.entries)
    if any(_LORA.search(name) for name in names):
        return _lora(names, header.metadata)
    if _is_embedding(header):
        return (
            "is a textual-inversion embedding of another program, not a concept file; "
            "orthoplex inspect and orthoplex convert read it"
        )
    return None


def other_kind(header: Header) -> str | None:
    """Return in words what a file is that is neither a concept file nor a LoRA file; None if it may be one.

    Args:
        header: Its header.
    """
    names = list(header.entries)
    if CHECKPOINT_KEY in header.metadata:
        return (
            "is the checkpoint of a training, not a concept file; the concept is the file without '.checkpoint' in its "
            "name, which the same orthoplex train command with --resume finishes"
        )
    if any(_WHOLE.search(name) for name in names):
        return (
            "is a whole model in one file, not a concept file; a base is a pipeline folder (--base), which diffusers "
            "makes of it (from_single_file, then save_pretrained)"
        )
    if any(_LORA.search(name) for name in names):
        return None
    if any(name.startswith(("control_model.", "controlnet_")) for name in names):
        return "is a ControlNet, not a concept file; Orthoplex cannot use it"
    if any(_NETWORKS.search(name) for name in names):
        return "is one network of a model, not a concept file; a base is the whole pipeline folder (--base)"
    return None


def holds_changes(header: Header) -> bool:
    """Return True if a file without a manifest is one of changes: a LoRA of any form, or an embedding.

    Args:
        header: Its header.
    """
    names = list(header.entries)
    if CHECKPOINT_KEY in header.metadata or any(_WHOLE.search(name) for name in names):
        return False
    return any(_LORA.search(name) for name in names) or _is_embedding(header)


def _lora(names: list[str], metadata: Mapping[str, str]) -> str:
    noun = next((noun for pattern, noun in _NOUNS.items() if all(re.search(pattern, name) for name in names)), "LoRA")
    by_kohya = any(key.startswith("ss_") for key in metadata)
    maker = next((maker for keys, maker in _MAKERS.items() if any(re.search(keys, name) for name in names)), "")
    known = f"{maker} (trained by sd-scripts)" if by_kohya and maker and "sd-scripts" not in maker else maker
    if noun.startswith("an IA3"):
        return f"is {noun}, not a concept of Orthoplex; it is no sum, so Orthoplex cannot use it; lycoris-lora reads it"
    what = noun if noun != "LoRA" else f"a LoRA of {known or 'another program'}"
    return f"is {what}, not a concept of Orthoplex; orthoplex inspect and orthoplex convert read it"


def _is_embedding(header: Header) -> bool:
    names = header.entries.keys()
    if names & {"emb_params", "clip_l", "clip_g", "t5", "string_to_param.*", "*"}:
        return True
    return 0 < len(names) <= 4 and all(
        name.startswith("<") or (len(entry.shape) in (1, 2) and entry.shape[-1] in (768, 1024, 1280, 4096))
        for name, entry in header.entries.items()
    )
