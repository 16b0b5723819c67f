#!/usr/bin/env bash
# Library: lycoris-lora 4.1.3 (torch 2.13.0, CPU).
# Behaviour: LoHa and LoKr modules apply alpha / rank once where they are trained and drawn with (forward), and twice
#   where they are merged into a layer (get_merged_weight, which merge_to uses). LoCon applies it once in both.
# Expected: a merged layer answers as the layer with its adapter did.
# Seen: with alpha 1 and rank 4, "locon: the merge is 1.00 times the forward", "loha: 0.25", "lokr: 0.25".
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 lycoris-lora==4.1.3 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import torch
from lycoris.modules import LoConModule, LohaModule, LokrModule

torch.manual_seed(0)
for name, algorithm, options in (
    ("locon", LoConModule, {}), ("loha", LohaModule, {}), ("lokr", LokrModule, {"factor": 4}),
):
    layer = torch.nn.Linear(64, 64, bias=False)
    adapter = algorithm("layer", layer, 1.0, lora_dim=4, alpha=1, **options).eval()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
        drawn = (adapter(torch.eye(64)) - layer(torch.eye(64))).T
        merged = adapter.get_merged_weight()[0] - layer.weight
    print(f"{name}: the merge is {merged.norm() / drawn.norm():.2f} times the forward")
PYTHON
grep -q "locon: the merge is 1.00 times the forward" seen.txt
grep -q "loha: the merge is 0.25 times the forward" seen.txt
grep -q "lokr: the merge is 0.25 times the forward" seen.txt
