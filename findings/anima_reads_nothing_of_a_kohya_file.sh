#!/usr/bin/env bash
# Library:   diffusers 0.42.1 (torch 2.13.0, peft 0.21.2, transformers 5.23.0, accelerate 1.15.0),
#            AnimaModularPipeline.load_lora_weights.
# Behaviour: a LoRA file in the names of kohya's sd-scripts (lora_unet_blocks_0_cross_attn_q_proj.lora_down.weight) is
#            accepted without an error or a warning, and nothing of it is loaded.
# Expected:  its layers change, as those of a file in ComfyUI's names do, or an error.
# Seen:      "comfy: 2 layers changed, kohya: 0 layers changed, errors: none"
# Date:      2026-12-01
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 diffusers==0.42.1 peft==0.21.2 transformers==5.23.0 accelerate==1.15.0 numpy
cat > "$folder/run.py" <<'PYTHON'
import warnings

import torch

warnings.simplefilter("ignore")
from diffusers import AnimaModularPipeline, CosmosTransformer3DModel
from peft.tuners.lora import LoraLayer

torch.manual_seed(0)
changed = {}
for style in ("comfy", "kohya"):
    network = CosmosTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=1, text_embed_dim=32,
        adaln_lora_dim=8, max_size=(4, 16, 16), extra_pos_embed_type=None,
    )
    pipeline = AnimaModularPipeline()
    pipeline.update_components(transformer=network)
    tensors = {}
    for layer in ("q_proj", "k_proj"):
        down, up = torch.randn(2, 32), torch.randn(32, 2)
        if style == "comfy":
            name = f"diffusion_model.blocks.0.cross_attn.{layer}"
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        else:
            name = f"lora_unet_blocks_0_cross_attn_{layer}"
            tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            tensors[f"{name}.alpha"] = torch.tensor(2.0)
            # every name holds "lora", which is all that is asked of them
    pipeline.load_lora_weights(tensors)
    changed[style] = sum(isinstance(module, LoraLayer) for module in network.modules())
print(", ".join(f"{style}: {count} layers changed" for style, count in changed.items()) + ", errors: none")
raise SystemExit(0 if changed == {"comfy": 2, "kohya": 0} else 1)
PYTHON
"$folder/venv/bin/python" "$folder/run.py" 2> /dev/null
