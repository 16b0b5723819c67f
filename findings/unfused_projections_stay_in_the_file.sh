#!/usr/bin/env bash
# Library: diffusers 0.42.1 (torch 2.13.0, CPU).
# Behaviour: unfuse_qkv_projections() of a U-Net puts the old attention processors back and leaves the fused weights in
#   the network: its state dict keeps a to_qkv or to_kv for every attention layer, save_pretrained writes them, and a
#   reload lists them as unexpected.
# Expected: the network of before fuse_qkv_projections(), with the same weights and a file of the same size.
# Seen: "before 156 weights, fused 160, unfused 160; unexpected after a reload: 4" (the same prediction throughout).
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import torch
from diffusers import UNet2DConditionModel

unet = UNet2DConditionModel(
    sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    mid_block_type="UNetMidBlock2DCrossAttn", attention_head_dim=2, cross_attention_dim=16,
)
inputs = torch.ones(1, 4, 8, 8), 5, torch.ones(1, 7, 16)
with torch.no_grad():
    before, prediction = len(unet.state_dict()), unet(*inputs).sample
    unet.fuse_qkv_projections()
    fused = len(unet.state_dict())
    unet.unfuse_qkv_projections()
    unfused, same = len(unet.state_dict()), torch.allclose(unet(*inputs).sample, prediction)
unet.save_pretrained("unet")
_, report = UNet2DConditionModel.from_pretrained("unet", output_loading_info=True)
print(f"before {before} weights, fused {fused}, unfused {unfused}; unexpected after a reload: {len(report['unexpected_keys'])}")
print("the same prediction" if same else "another prediction")
PYTHON
grep -Eq "before ([0-9]+) weights, fused ([0-9]+), unfused \2; unexpected after a reload: [1-9]" seen.txt
grep -q "the same prediction" seen.txt
