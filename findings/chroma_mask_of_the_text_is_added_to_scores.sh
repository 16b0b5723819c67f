#!/usr/bin/env bash
# Library:   diffusers 0.42.1 (torch 2.13.0, transformers 5.23.0, accelerate 1.15.0), ChromaPipeline.
# Behaviour: the mask of the prompt's filling is a tensor of numbers 0 and 1, and the attention of
#            ChromaTransformer2DModel adds it to the scores: filling is not masked, its scores are only lower by one.
# Expected:  positions of filling behind the first one do not change a prediction, as the pipeline's comment says
#            ("all except the first padding token are masked out"), and as a mask of truth values does.
# Seen:      "numbers: filling changed, the prediction moves by 0.0295 of its size", and 0.0000 with truth values.
# Date:      2026-12-01
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy
cat > "$folder/run.py" <<'PYTHON'
import warnings

import torch

warnings.simplefilter("ignore")
from diffusers import ChromaPipeline, ChromaTransformer2DModel

torch.manual_seed(0)
network = ChromaTransformer2DModel(
    in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=32, axes_dims_rope=(4, 6, 6), approximator_num_channels=8, approximator_hidden_dim=16,
    approximator_layers=1,
).eval()
text, pictures = torch.randn(1, 12, 32), torch.randn(1, 16, 16)
other = text.clone()
other[:, 4:] += 5.0  # the filling alone
mask = (torch.arange(12) < 4).float().unsqueeze(0)  # as ChromaPipeline's own reading of a prompt returns it


@torch.no_grad()
def predict(features, mask):
    whole = ChromaPipeline._prepare_attention_mask(None, 1, 16, torch.float32, mask)
    return network(
        hidden_states=pictures, timestep=torch.tensor([0.5]), encoder_hidden_states=features,
        txt_ids=torch.zeros(12, 3), img_ids=torch.zeros(16, 3), attention_mask=whole, return_dict=False,
    )[0]


moved = {}
for name, given in {"numbers": mask, "truth values": mask.bool()}.items():
    before, after = predict(text, given), predict(other, given)
    moved[name] = float((before - after).norm() / before.norm())
    print(f"{name}: filling changed, the prediction moves by {moved[name]:.4f} of its size")
raise SystemExit(0 if moved["numbers"] > 1e-3 and moved["truth values"] < 1e-6 else 1)
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
