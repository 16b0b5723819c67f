#!/usr/bin/env bash
# Library: diffusers 0.42.1 (peft 0.21.2, transformers 5.23.0, torch 2.13.0, CPU).
# Behaviour: a LoRA file in kohya's names that changes a text encoder and none of its out_proj layers cannot be loaded:
#   ValueError "Could not automatically infer state dict type". The same file with one out_proj more loads. The layout is
#   recognised by the words "to_out_lora" alone, which out_proj becomes on the path to diffusers' old names.
# Expected: a file that changes q_proj, k_proj and v_proj (or the feed-forward layers) loads, as PEFT's names do.
# Seen: "q_proj: Could not automatically infer state dict type", "q_proj out_proj: loaded".
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 peft==0.21.2 accelerate==1.15.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel

for layers in (["q_proj"], ["q_proj", "out_proj"]):
    file = {}
    for layer in layers:
        name = f"lora_te_text_model_encoder_layers_0_self_attn_{layer}"
        file[f"{name}.lora_down.weight"], file[f"{name}.lora_up.weight"] = torch.ones(2, 16), torch.ones(16, 2)
        file[f"{name}.alpha"] = torch.tensor(2.0)
    encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, eos_token_id=1,
    ))
    try:
        weights, alphas = StableDiffusionPipeline.lora_state_dict(file)
        StableDiffusionPipeline.load_lora_into_text_encoder(weights, alphas, encoder, prefix="text_encoder")
        seen = "loaded" if any("lora_A" in name for name, _ in encoder.named_parameters()) else "nothing loaded"
    except ValueError as error:
        seen = str(error)
    print(f"{' '.join(layers)}: {seen}")
PYTHON
grep -qx "q_proj: Could not automatically infer state dict type" seen.txt
grep -qx "q_proj out_proj: loaded" seen.txt
