#!/usr/bin/env bash
# Library: diffusers 0.42.1 with peft 0.21.2 (torch 2.13.0, CPU).
# Behaviour: load_lora_weights of a FLUX.1 file with kohya's names converts the embedders and the last layer ("img_in",
#   "txt_in", "time_in", "vector_in", "guidance_in", "final_layer") to names without "transformer.", and then takes only
#   names with it: these changes are left out, with no exception, and no line in the log names them. Blocks of the file are read.
# Expected: "x_embedder" is changed too, as a ComfyUI name for it is; or the file is refused.
# Seen: "layers with a LoRA: ['single_transformer_blocks.0.proj_out']; warnings: 0"
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import logging
import warnings

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from peft.tuners.lora import LoraLayer

transformer = FluxTransformer2DModel(
    in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
)
pipeline = FluxPipeline(
    scheduler=FlowMatchEulerDiscreteScheduler(), vae=None, text_encoder=None, tokenizer=None, text_encoder_2=None,
    tokenizer_2=None, transformer=transformer,
)
tensors = {}
for name, layer in {
    "img_in": transformer.x_embedder, "single_blocks_0_linear2": transformer.single_transformer_blocks[0].proj_out,
}.items():
    tensors |= {
        f"lora_unet_{name}.lora_down.weight": torch.randn(4, layer.in_features),
        f"lora_unet_{name}.lora_up.weight": torch.randn(layer.out_features, 4),
        f"lora_unet_{name}.alpha": torch.tensor(4.0),
    }
lines = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger("diffusers").addHandler(handler)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    pipeline.load_lora_weights(tensors, adapter_name="a")
changed = [name for name, module in transformer.named_modules() if isinstance(module, LoraLayer)]
about = [line for line in (*lines, *(str(each.message) for each in caught)) if "img_in" in line or "x_embedder" in line]
print(f"layers with a LoRA: {changed}; warnings: {len(about)}")
PYTHON
grep -qF "layers with a LoRA: ['single_transformer_blocks.0.proj_out']; warnings: 0" seen.txt
