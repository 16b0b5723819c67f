"""Pipelines as the checkpoint files of other programs: the inverse of what diffusers converts, written out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, cat, nn

from orthoplex.concepts.layer_table import layer_table

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.attentions.0": "middle_block.1",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = (
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("embeddings.token_embedding", "token_embedding"),
    ("final_layer_norm", "ln_final"),
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if text == ours or text.startswith(f"{ours}."):
            return theirs + text[len(ours) :]
    return text


def ldm_unet(tensors: Mapping[str, Tensor], layers_per_block: int) -> dict[str, Tensor]:
    """The tensors of a U-Net under the names of the first code of Stable Diffusion."""
    attended = {match[0] for name in tensors if (match := re.match(r"up_blocks\.\d+\.attentions", name))}

    def name_of(name: str) -> str:
        match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
        if match is None:
            middle = re.match(r"mid_block\.resnets\.(\d)\.(.*)", name)
            if middle is not None:
                return f"middle_block.{2 * int(middle[1])}.{_renamed(middle[2], _RESNET)}"
            return _renamed(name, _UNET_ENDS)
        side, block, kind, item, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if side == "down":
            number = 1 + block * (layers_per_block + 1) + item
            number += layers_per_block if kind == "downsamplers" else 0
        else:
            number = block * (layers_per_block + 2 - 1) + item
            number += layers_per_block if kind == "upsamplers" else 0
        start = f"{'input' if side == 'down' else 'output'}_blocks.{number}"
        if kind == "resnets":
            return f"{start}.0.{_renamed(rest, _RESNET)}"
        if kind == "attentions":
            return f"{start}.1.{rest}"
        if kind == "downsamplers":
            return f"{start}.0.op.{rest.removeprefix('conv.')}"
        return f"{start}.{2 if f'up_blocks.{block}.attentions' in attended else 1}.{rest}"

    return {name_of(name): values for name, values in tensors.items()}


def ldm_autoencoder(tensors: Mapping[str, Tensor], num_levels: int) -> dict[str, Tensor]:
    """The tensors of an autoencoder under the names of the first code of Stable Diffusion."""

    def name_of(name: str) -> str:
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
        middle = re.match(r"(.*)mid_block\.attentions\.0\.(.*)", name)
        if middle is not None:
            return f"{middle[1]}mid.attn_1.{_renamed(middle[2], _ATTENTION)}"
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        level = re.sub(
            r"up_blocks\.(\d)\.", lambda match: f"up.{num_levels - 1 - int(match[1])}.", name
        )  # counted from the largest
        return level.replace(".resnets.", ".block.").replace(".upsamplers.0.", ".upsample.")

    named = {name_of(name): values for name, values in tensors.items()}
    # the attention of the first code was made of convolutions
    return {
        name: values[:, :, None, None] if ".attn_1." in name and values.ndim == 2 else values
        for name, values in named.items()
    }


def ldm_text_encoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of CLIP as transformers names them, with the inner ``text_model`` of its first releases."""
    outside = ("text_model.", "text_projection")
    return {name if name.startswith(outside) else f"text_model.{name}": values for name, values in tensors.items()}


def open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a text encoder as OpenCLIP names them, queries, keys and values in one."""
    bare = {name.removeprefix("text_model."): values for name, values in tensors.items()}
    named: dict[str, Tensor] = {}
    for name, values in bare.items():
        if name == "text_projection.weight":
            named["text_projection"] = values.T.contiguous()
            continue
        part = re.match(r"(.*)self_attn\.([qkv])_proj\.(weight|bias)", name)
        if part is not None:
            if part[2] == "q":
                values = cat([bare[f"{part[1]}self_attn.{letter}_proj.{part[3]}"] for letter in "qkv"])
                named[_open_clip_name(f"{part[1]}attn.in_proj_{part[3]}")] = values
            continue
        named[_open_clip_name(name)] = values
    return named


def _open_clip_name(name: str) -> str:
    for ours, theirs in _OPEN_CLIP:
        name = name.replace(ours, theirs)
    return name


def write_checkpoint(path: Path, parts: Sequence[tuple[str, Mapping[str, Tensor]]]) -> Path:
    """Write parts, each with the beginning of its names, as one file."""
    tensors = {f"{start}{name}": values.contiguous() for start, part in parts for name, values in part.items()}
    save_file(tensors, path)
    return path


def stable_diffusion_parts(pipeline, *, is_open: bool = False) -> list[tuple[str, dict[str, Tensor]]]:  # noqa: ANN001
    """The parts of a checkpoint file of Stable Diffusion 1, or of 2, whose text encoder is OpenCLIP's."""
    unet, autoencoder, encoder = (part.state_dict() for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder))
    text = (
        ("cond_stage_model.model.", open_clip(encoder))
        if is_open
        else (
            "cond_stage_model.transformer.",
            ldm_text_encoder(encoder),
        )
    )
    return [
        ("model.diffusion_model.", ldm_unet(unet, pipeline.unet.config.layers_per_block)),
        ("first_stage_model.", ldm_autoencoder(autoencoder, len(pipeline.vae.config.block_out_channels))),
        text,
    ]


_KREA2 = re.compile(r"^transformer_blocks\.(\d+)\.scale_shift_table$")
_LAST = {"final_layer.scale_shift_table": "last.modulation.lin"}
"""Parameters of Krea 2 that are no modules; those of others have one name."""


def original(network: nn.Module, version: str) -> dict[str, Tensor]:
    """The tensors of a transformer under the names of its own code."""
    table = layer_table(version)
    assert table is not None
    tensors, named = dict(network.state_dict()), {}
    for name, module in table.original_modules(version).items():
        layers = [layer.removeprefix("transformer.") for layer in module.layers]
        for end in ("weight", "bias"):
            if f"{layers[0]}.{end}" in tensors:
                values = torch.cat([tensors.pop(f"{layer}.{end}") for layer in layers])
                values = torch.cat(values.chunk(2)[::-1]) if module.swapped_halves else values
                named[name if name.endswith("scale") else f"{name}.{end}"] = values
    return named | {_KREA2.sub(r"blocks.\1.mod.lin", _LAST.get(name, name)): values for name, values in tensors.items()}


def stable_diffusion_xl_parts(pipeline) -> list[tuple[str, dict[str, Tensor]]]:  # noqa: ANN001
    """The parts of a checkpoint file of Stable Diffusion XL."""
    first, second = pipeline.text_encoder.state_dict(), pipeline.text_encoder_2.state_dict()
    levels = len(pipeline.vae.config.block_out_channels)
    return [
        ("model.diffusion_model.", ldm_unet(pipeline.unet.state_dict(), pipeline.unet.config.layers_per_block)),
        ("first_stage_model.", ldm_autoencoder(pipeline.vae.state_dict(), levels)),
        ("conditioner.embedders.0.transformer.", ldm_text_encoder(first)),
        ("conditioner.embedders.1.model.", open_clip(second)),
    ]


def checkpoint_of(pipeline, version: str, path: Path) -> Path:  # noqa: ANN001
    """Write a pipeline as one file: all of Stable Diffusion, of others the denoiser in the names of its own code."""
    if version.startswith("sdxl"):
        return write_checkpoint(path, stable_diffusion_xl_parts(pipeline))
    if version.startswith("sd"):
        return write_checkpoint(path, stable_diffusion_parts(pipeline))
    if version == "anima":
        parts = [("net.", original(pipeline.transformer, version))]
        return write_checkpoint(path, [*parts, ("net.llm_adapter.", pipeline.text_conditioner.state_dict())])
    return write_checkpoint(path, [("", original(pipeline.transformer, version))])
