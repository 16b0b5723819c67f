"""The names of U-Nets' modules in the code that Stable Diffusion was published with."""

from __future__ import annotations

from collections.abc import Iterable

from orthoplex.concepts.layer_table import OriginalModule

_SINGLE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_RESNETS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_SAMPLERS = {"downsamplers": "op", "upsamplers": "conv"}


def unet_originals(layers: Iterable[str]) -> dict[str, OriginalModule]:
    """Return the original modules of a U-Net: one for every layer of ``unet``."""
    paths = [layer.removeprefix("unet.") for layer in layers if layer.startswith("unet.")]
    return {_original(path, paths): OriginalModule((f"unet.{path}",)) for path in paths}


def _original(path: str, paths: list[str]) -> str:
    """The original name of a path; original blocks are numbered through, a sampler has a number of its own."""
    if path in _SINGLE:
        return _SINGLE[path]
    group, *rest = path.split(".")
    if group == "mid_block":
        part, index, *inside = rest
        return f"middle_block.{2 * int(index) + (part == 'attentions')}.{_inside(part, inside)}"
    block, part, index, *inside = rest
    down = group == "down_blocks"
    num_resnets = len({name.split(".")[3] for name in paths if name.startswith(f"{group}.0.resnets.")})
    per_block = num_resnets + down
    number = int(block) * per_block + down + (int(index) if part not in _SAMPLERS else num_resnets - (not down))
    attends = any(name.startswith(f"{group}.{block}.attentions.") for name in paths)
    place = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": 1 + attends}[part]
    return f"{'input' if down else 'output'}_blocks.{number}.{place}.{_inside(part, inside)}"


def _inside(part: str, inside: list[str]) -> str:
    """The name of a layer inside a block's part."""
    if part == "resnets":
        return _IN_RESNETS[".".join(inside)]
    return _SAMPLERS.get(part, ".".join(inside))
