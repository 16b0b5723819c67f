"""Which weights of a pipeline a concept may change, and what they are called.

A layer's name is its component and its diffusers path: ``unet.<path>`` or ``text_encoder.text_model.<path>``. Newer
CLIP text encoders dropped the inner ``text_model``; the name keeps it, so that one file fits all versions. Other text
encoders, as T5, never had it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

SELECTIONS = ("cross-attention-kv", "cross-attention", "attention", "linear")

_UNET_ENDS = {
    "cross-attention-kv": ("attn2.to_k", "attn2.to_v"),
    "cross-attention": ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
    "attention": tuple(f"{attention}.{part}" for attention in ("attn1", "attn2") for part in
                       ("to_q", "to_k", "to_v", "to_out.0")),
}  # fmt: skip
_TEXT_ATTENTION_ENDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
_BLOCKS = ("down_blocks", "mid_block", "up_blocks")
_TEXT_MLP_ENDS = ("mlp.fc1", "mlp.fc2")
_TEXT_ENCODER = "text_encoder"
_OF_CLIP = re.compile(r"(embeddings|encoder\.layers|final_layer_norm)(\.|$)")
"""Beginnings of paths in a CLIP text encoder without ``text_model``; other text encoders have other names."""


def component_name(component: str, path: str) -> str:
    """The name of a module from its component and its path inside the component."""
    return f"{component}.{portable_path(path) if is_text_encoder(component) else path}"


def is_text_encoder(component: str) -> bool:
    """Return True if a component, by its name, is a text encoder."""
    return component.startswith(_TEXT_ENCODER)


def portable_path(path: str) -> str:
    """A path inside a text encoder, as every release of transformers reads it: in CLIP's with ``text_model.``."""
    return f"text_model.{path}" if _OF_CLIP.match(path) else path


def select_linear_layers(
    modules: Mapping[str, nn.Module], selection: str, *, text_encoder: bool = False
) -> dict[str, nn.Linear]:
    """The linear layers of a selection of a U-Net, by name, in the order of the model.

    Args:
        modules: Component to module, with ``unet`` and CLIP's text encoders.
        selection: One of ``SELECTIONS``; ``linear`` is every linear layer of the transformer blocks, with their input
            and output projections, and without the projections of the time.
        text_encoder: Also the text encoders' attention projections, and their feed-forward layers for ``linear``.
    """
    chosen: dict[str, nn.Linear] = {}
    for path, module in _linear_modules(modules["unet"]).items():
        if ".attentions." in f".{path}" and (selection == "linear" or path.endswith(_UNET_ENDS[selection])):
            chosen[component_name("unet", path)] = module
    if text_encoder:
        ends = _TEXT_ATTENTION_ENDS + (_TEXT_MLP_ENDS if selection == "linear" else ())
        for name, module in all_linear_layers(modules).items():
            if is_text_encoder(name) and name.endswith(ends):
                chosen[name] = module
    return chosen


def cross_attention_modules(unet: nn.Module) -> dict[str, nn.Module]:
    """The cross-attention layers of a denoiser, by path, in the order in which it uses them.

    That is: down blocks, the middle block, up blocks; in each of them as they are numbered.
    """
    paths = {path: module for path, module in unet.named_modules() if path.endswith(".attn2")}
    return dict(sorted(paths.items(), key=lambda item: _BLOCKS.index(item[0].partition(".")[0])))


def all_linear_layers(modules: Mapping[str, nn.Module]) -> dict[str, nn.Linear]:
    """Every linear layer of every component, by name."""
    return {
        component_name(component, path): layer
        for component, module in modules.items()
        for path, layer in _linear_modules(module).items()
    }


def _linear_modules(module: nn.Module) -> dict[str, nn.Linear]:
    return {path: layer for path, layer in module.named_modules() if isinstance(layer, nn.Linear)}
