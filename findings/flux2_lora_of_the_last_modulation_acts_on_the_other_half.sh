#!/usr/bin/env bash
# Library: diffusers 0.42.1 (torch 2.13.0, CPU).
# Behaviour: FLUX.2's own code and diffusers have shift and scale of the last modulation in the opposite order. The
#   converter of checkpoints exchanges the two halves of final_layer.adaLN_modulation.1; the converter of LoRA files
#   with the same names takes lora_B as it is. What a LoRA adds to the shift is added to the scale.
# Expected: a checkpoint with a LoRA merged into it, and the checkpoint with the LoRA loaded, are the same model.
# Seen: "rows of the change: merged into the checkpoint [3, 4, 1, 2]; as a LoRA [1, 2, 3, 4]"
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_flux2_lora_to_diffusers as lora_of
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers as checkpoint_of

NAME, OURS = "final_layer.adaLN_modulation.1", "norm_out.linear"
up, down = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([[1.0, 0.0]])  # halves: rows 1, 2 and 3, 4
merged = checkpoint_of({f"{NAME}.weight": up @ down})[f"{OURS}.weight"]
loaded = lora_of({f"diffusion_model.{NAME}.lora_A.weight": down, f"diffusion_model.{NAME}.lora_B.weight": up})
change = loaded[f"transformer.{OURS}.lora_B.weight"] @ loaded[f"transformer.{OURS}.lora_A.weight"]
rows = [[int(value) for value in matrix[:, 0]] for matrix in (merged, change)]
print(f"rows of the change: merged into the checkpoint {rows[0]}; as a LoRA {rows[1]}")
PYTHON
grep -qF "merged into the checkpoint [3, 4, 1, 2]; as a LoRA [1, 2, 3, 4]" seen.txt
