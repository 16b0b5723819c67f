#!/usr/bin/env bash
# Library: openvino-genai 2026.4.1.0 (openvino 2026.4.1).
# Behaviour: Adapter reads a file with kohya's names whole and ignores the alpha of every layer: the strength given in
#   AdapterConfig is the only factor of up · down. A file of rank 2 and alpha 1 draws with twice its change, without a
#   word.
# Expected: up · down times alpha / rank, as every other program reads the file.
# Seen: "rank 2: change 8 with alpha 2, 8 with alpha 1" (expected 8 and 4).
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install openvino==2026.4.1 openvino-genai==2026.4.1.0 safetensors==0.8.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import json
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai
from openvino import opset13 as ops
from safetensors.numpy import save_file

for folder in ("unet", "vae_decoder"):
    Path(folder).mkdir()
Path("vae_decoder/config.json").write_text(json.dumps({"block_out_channels": [8, 8]}))
Path("unet/config.json").write_text(json.dumps({"in_channels": 4, "sample_size": 2, "time_cond_proj_dim": None}))
sample = ops.parameter([1, 4, 2, 2], np.float32, name="sample")
time = ops.parameter([1], np.int64, name="timestep")
text = ops.parameter([1, 4, 4], np.float32, name="encoder_hidden_states")
layer = ops.matmul(text, ops.constant(np.eye(4, dtype=np.float32)), False, True, name="down_blocks.0.attn2.to_k/MatMul")
layer.set_friendly_name("__module.down_blocks.0.attn2.to_k/aten::linear/MatMul")
added = ops.add(sample, ops.reshape(layer, ops.constant(np.array([1, 4, 2, 2])), False))
added = ops.add(added, ops.convert(ops.reduce_sum(time, ops.constant([0])), np.float32))
for node in (sample, time, text):
    node.output(0).set_names({node.get_friendly_name()})
added.output(0).set_names({"out_sample"})
ov.save_model(ov.Model([added], [sample, time, text]), "unet/openvino_model.xml", compress_to_fp16=False)

key = "lora_unet_down_blocks_0_attn2_to_k"
changes = []
for alpha in (2.0, 1.0):
    factors = {".lora_down.weight": np.ones((2, 4), np.float32), ".lora_up.weight": np.ones((4, 2), np.float32)}
    save_file({key + end: tensor for end, tensor in factors.items()} | {key + ".alpha": np.array(alpha, np.float32)}, "a.safetensors")
    config = openvino_genai.AdapterConfig(openvino_genai.Adapter("a.safetensors"), 1.0)
    results = []
    for options in ({}, {"adapters": config}):
        unet = openvino_genai.UNet2DConditionModel("unet", "CPU", INFERENCE_PRECISION_HINT="f32", **options)
        unet.set_hidden_states("encoder_hidden_states", ov.Tensor(np.ones((1, 4, 4), np.float32)))
        if options:
            unet.set_adapters(config)
        inputs = ov.Tensor(np.zeros((1, 4, 2, 2), np.float32)), ov.Tensor(np.zeros(1, np.int64))
        results.append(unet.infer(*inputs).data.copy())
    changes.append((results[1] - results[0]).max())
print(f"rank 2: change {changes[0]:g} with alpha 2, {changes[1]:g} with alpha 1")
PYTHON
grep -q "rank 2: change 8 with alpha 2, 8 with alpha 1" seen.txt
