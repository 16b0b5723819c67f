#!/usr/bin/env bash
# Libraries: diffusers 0.42.1 with transformers 5.23.0 (torch 2.13.0, CPU).
# Behaviour: a Stable Diffusion pipeline that was saved in float16 is loaded in two types when no type is named: the
#   U-Net and the autoencoder become float32 (the default of diffusers), the text encoder stays float16 (the type that
#   its configuration names, which transformers follows). The first picture raises.
# Expected: one type for all networks, whichever, and a picture.
# Seen: "unet float32, vae float32, text_encoder float16" and
#   "RuntimeError: mat1 and mat2 must have the same dtype, but got Half and Float".
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

words = [chr(number) for number in range(33, 127)]
vocabulary = [*words, *(word + "</w>" for word in words), "<|startoftext|>", "<|endoftext|>"]
Path("vocabulary").mkdir()
Path("vocabulary/vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
Path("vocabulary/merges.txt").write_text("#version: 0.2\n")
tokenizer = CLIPTokenizer.from_pretrained("vocabulary", model_max_length=16)
text = CLIPTextConfig(
    vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
)
unet = UNet2DConditionModel(
    sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=2, cross_attention_dim=16,
)
vae = AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=4, sample_size=8)
pipeline = StableDiffusionPipeline(
    vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(),
    safety_checker=None, feature_extractor=None, requires_safety_checker=False,
)
pipeline.to(dtype=torch.float16).save_pretrained("half")
loaded = StableDiffusionPipeline.from_pretrained("half", safety_checker=None)
types = {name: str(getattr(loaded, name).dtype).removeprefix("torch.") for name in ("unet", "vae", "text_encoder")}
print(", ".join(f"{name} {kind}" for name, kind in types.items()))
try:
    loaded("a", num_inference_steps=1, output_type="latent")
    print("a picture")
except RuntimeError as error:
    print(f"RuntimeError: {error}")
PYTHON
grep -q "unet float32, vae float32, text_encoder float16" seen.txt
grep -q "RuntimeError: mat1 and mat2 must have the same dtype, but got Half and Float" seen.txt
