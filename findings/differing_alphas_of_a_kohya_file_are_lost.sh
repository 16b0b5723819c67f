#!/usr/bin/env bash
# Library: diffusers 0.42.1 with peft 0.21.2 (torch 2.13.0, CPU).
# Behaviour: load_lora_weights of a file with kohya's names whose alphas differ within the U-Net (each layer's alpha is
#   its rank, 4 or 8) loads every layer, and gives attention layers whose alpha is not the commonest the commonest one:
#   alpha keys are renamed to "…attn2.processor.to_k_lora.down.weight" (the alpha_pattern), a name that no layer has.
#   PEFT warns that keys of alpha_pattern were ignored. The same file without any alpha is read exactly.
# Expected: up · down times alpha / rank of each layer, which is up · down here, as sd-scripts and ComfyUI read it.
# Seen: "with alphas 0.5 1.0 1.0; without 1.0 1.0 1.0" (factor of the change read, layers of rank 8, 4 and 4).
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0."
RANKS = {BLOCK + "attn2.to_k": 8, BLOCK + "attn2.to_q": 4, BLOCK + "ff.net.2": 4}


def read(with_alphas):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8, attention_head_dim=8, cross_attention_dim=24,
    )
    tensors, factors = {}, []
    for name, rank in RANKS.items():
        up, down = torch.randn(unet.get_submodule(name).out_features, rank), torch.randn(rank, unet.get_submodule(name).in_features)
        key = "lora_unet_" + name.replace(".", "_")
        tensors |= {key + ".lora_down.weight": down, key + ".lora_up.weight": up}
        if with_alphas:
            tensors[key + ".alpha"] = torch.tensor(float(rank))
        factors.append(up @ down)
    pipeline = StableDiffusionPipeline(
        vae=None, text_encoder=None, tokenizer=None, unet=unet, scheduler=DDIMScheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )
    pipeline.load_lora_weights(tensors, adapter_name="a")
    changes = [unet.get_submodule(name).get_delta_weight("a") for name in RANKS]
    return " ".join(f"{(change * wanted).sum() / wanted.square().sum():.1f}" for change, wanted in zip(changes, factors))


print(f"with alphas {read(True)}; without {read(False)}")
PYTHON
grep -q "with alphas 0.5 1.0 1.0; without 1.0 1.0 1.0" seen.txt
