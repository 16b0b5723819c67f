#!/usr/bin/env bash
# Library: diffusers 0.42.1 (torch 2.13.0, CPU).
# Behaviour: the converter of a FLUX.2 checkpoint exchanges the halves (shift and scale) of
#   final_layer.adaLN_modulation.1 when it makes norm_out.linear of it. The converter of a FLUX.2 LoRA file
#   ("diffusion_model.final_layer.adaLN_modulation.1.lora_A.weight") makes norm_out.linear of it too, and does not.
#   So the change of the shift goes to the scale, and that of the scale to the shift; nothing is said.
# Expected: weight and change are converted alike; here halves "2 1" of the original are "1 2" in both.
# Seen: "checkpoint [1.0, 2.0] LoRA [2.0, 1.0]".
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import torch
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers

NAME = "final_layer.adaLN_modulation.1"
original = torch.tensor([[2.0], [1.0]])
weight = convert_flux2_transformer_checkpoint_to_diffusers({NAME + ".weight": original.clone()})["norm_out.linear.weight"]
tensors = {
    f"diffusion_model.{NAME}.lora_A.weight": torch.ones(1, 1),
    f"diffusion_model.{NAME}.lora_B.weight": original.clone(),
}
converted, _ = Flux2LoraLoaderMixin.lora_state_dict(tensors, return_lora_metadata=True)
up = converted["transformer.norm_out.linear.lora_B.weight"]
print("checkpoint", weight.flatten().tolist(), "LoRA", up.flatten().tolist())
PYTHON
grep -qF "checkpoint [1.0, 2.0] LoRA [2.0, 1.0]" seen.txt
