#!/usr/bin/env bash
# Library: diffusers 0.42.1 (torch 2.13.0, CPU).
# Behaviour: Flux2Transformer2DModel.from_single_file takes a file of FLUX.2's own names, but raises a KeyError where
#   each of them begins with "model.diffusion_model.", as ComfyUI saves denoisers; diffusers knows such files by that
#   very beginning (CHECKPOINT_KEY_NAMES), and its conversions of FLUX.1, Chroma and Z-Image take it away.
# Expected: the same network out of both files.
# Seen: "plain names: loaded", "with model.diffusion_model.: KeyError 'double_blocks.0.img_attn.norm.key_norm'".
# Date: 2026-12-01
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import torch
from diffusers import Flux2Transformer2DModel
from safetensors.torch import save_file

network = Flux2Transformer2DModel(
    in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=24, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
)
network.save_config("network")
ours = network.state_dict()
theirs = {
    "img_in.weight": ours["x_embedder.weight"],
    "txt_in.weight": ours["context_embedder.weight"],
    "time_in.in_layer.weight": ours["time_guidance_embed.timestep_embedder.linear_1.weight"],
    "time_in.out_layer.weight": ours["time_guidance_embed.timestep_embedder.linear_2.weight"],
    "double_stream_modulation_img.lin.weight": ours["double_stream_modulation_img.linear.weight"],
    "double_stream_modulation_txt.lin.weight": ours["double_stream_modulation_txt.linear.weight"],
    "single_stream_modulation.lin.weight": ours["single_stream_modulation.linear.weight"],
    "final_layer.linear.weight": ours["proj_out.weight"],
    "final_layer.adaLN_modulation.1.weight": torch.cat(ours["norm_out.linear.weight"].chunk(2)[::-1]),
    "single_blocks.0.linear1.weight": ours["single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight"],
    "single_blocks.0.linear2.weight": ours["single_transformer_blocks.0.attn.to_out.weight"],
    "single_blocks.0.norm.query_norm.scale": ours["single_transformer_blocks.0.attn.norm_q.weight"],
    "single_blocks.0.norm.key_norm.scale": ours["single_transformer_blocks.0.attn.norm_k.weight"],
}
for stream, mark, out, feed in (("img", "", "to_out.0", "ff"), ("txt", "add_", "to_add_out", "ff_context")):
    block, start = f"double_blocks.0.{stream}_", "transformer_blocks.0."
    names = [f"add_{letter}_proj" if mark else f"to_{letter}" for letter in "qkv"]
    theirs[f"{block}attn.qkv.weight"] = torch.cat([ours[f"{start}attn.{name}.weight"] for name in names])
    for letter, name in (("q", "query"), ("k", "key")):
        norm = f"norm_{'added_' if mark else ''}{letter}"
        theirs[f"{block}attn.norm.{name}_norm.scale"] = ours[f"{start}attn.{norm}.weight"]
    theirs[f"{block}attn.proj.weight"] = ours[f"{start}attn.{out}.weight"]
    theirs[f"{block}mlp.0.weight"] = ours[f"{start}{feed}.linear_in.weight"]
    theirs[f"{block}mlp.2.weight"] = ours[f"{start}{feed}.linear_out.weight"]
for said, prefix in (("plain names", ""), ("with model.diffusion_model.", "model.diffusion_model.")):
    save_file({prefix + name: values.contiguous().clone() for name, values in theirs.items()}, "file.safetensors")
    try:
        read = Flux2Transformer2DModel.from_single_file("file.safetensors", config="network").state_dict()
        assert all(torch.equal(read[name], values) for name, values in ours.items())
        print(f"{said}: loaded")
    except KeyError as error:
        print(f"{said}: KeyError {error}")
PYTHON
grep -q "plain names: loaded" seen.txt && grep -q "with model.diffusion_model.: KeyError" seen.txt
