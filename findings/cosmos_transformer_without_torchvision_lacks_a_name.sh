#!/usr/bin/env bash
# Library:   diffusers 0.42.1 (torch 2.13.0), CosmosTransformer3DModel, which Anima and Cosmos-Predict2 use.
# Behaviour: with its default settings the transformer resizes a mask by torchvision, which diffusers does not require.
#            Where that is not installed, the class is imported and built, and the first call fails with a NameError.
# Expected:  no such need, as the mask is resized to the nearest position, or an ImportError that names the package.
# Seen:      "built; called: NameError: name 'transforms' is not defined"
# Date:      2026-12-01
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 numpy
cat > "$folder/run.py" <<'PYTHON'
import torch
from diffusers import CosmosTransformer3DModel

network = CosmosTransformer3DModel(
    in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, text_embed_dim=32,
    adaln_lora_dim=8, max_size=(4, 16, 16), extra_pos_embed_type=None,
).eval()
try:
    with torch.no_grad():
        network(
            hidden_states=torch.zeros(1, 4, 1, 8, 8), timestep=torch.tensor([0.5]),
            encoder_hidden_states=torch.zeros(1, 6, 32), padding_mask=torch.zeros(1, 1, 64, 64),
        )
    print("built; called")
except Exception as error:
    print(f"built; called: {type(error).__name__}: {error}")
PYTHON
"$folder/venv/bin/python" "$folder/run.py" 2> /dev/null | tee "$folder/seen.txt"
grep -q "built; called: NameError: name 'transforms' is not defined" "$folder/seen.txt"
