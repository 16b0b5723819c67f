#!/usr/bin/env bash
# Library: bitsandbytes 0.50.2 (torch 2.13.0, CPU with AVX512-BF16; other processors take another path).
# Behaviour: the first call of a 4-bit layer in evaluation mode re-orders its weight and its scales for the processor.
#   ``state_dict()`` brings the weight back and, without double quantisation, not the scales: they stay transposed and
#   rounded to bfloat16. What was saved after a picture loads without a word, and is another layer.
# Expected: calling a layer changes nothing that is stored of it.
# Seen: "scales before the call (128,) float32, after it (2, 64) bfloat16" and
#   "the layer that was stored after the call differs by 0.44 of its output".
# Date: 2026-12-01
set -euo pipefail
if ! grep -q avx512_bf16 /proc/cpuinfo; then
  echo "this processor has no AVX512-BF16: nothing to see"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 bitsandbytes==0.50.2 2> /dev/null
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee "$folder/seen.txt"
import bitsandbytes
import torch
from bitsandbytes.nn import Linear4bit, Params4bit


def layer() -> Linear4bit:
    options = {"bias": False, "quant_type": "nf4", "compute_dtype": torch.float32, "compress_statistics": False}
    return Linear4bit(128, 64, **options).requires_grad_(False).eval()


def loaded(state: dict[str, torch.Tensor]) -> Linear4bit:
    new = layer()
    numbers = {name.removeprefix("weight."): values for name, values in state.items() if name != "weight"}
    new.weight = Params4bit.from_prequantized(state["weight"], numbers, device="cpu", module=new)
    return new


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in state.items()}


torch.manual_seed(0)
first = layer()
first.weight.data *= torch.linspace(0.2, 2.0, 64).view(-1, 1)  # rows of different sizes, as trained weights have them
first = first.to("cpu")
x = torch.randn(8, 128)
before = copied(first.state_dict())
with torch.no_grad():
    first(x)
    after = copied(first.state_dict())
    scales = [state["weight.absmax"] for state in (before, after)]
    shown = [f"{tuple(values.shape)} {str(values.dtype).removeprefix('torch.')}" for values in scales]
    print(f"scales before the call {shown[0]}, after it {shown[1]}")
    weights = []
    for state in (before, after):
        new = loaded(state)
        weights.append(bitsandbytes.functional.dequantize_4bit(new.weight.data, new.weight.quant_state).float())
right, wrong = (x @ weight.T for weight in weights)
print(f"the layer that was stored after the call differs by {float((wrong - right).norm() / right.norm()):.2f} of its output")
PYTHON
grep -q "scales before the call (128,) float32, after it (2, 64) bfloat16" "$folder/seen.txt"
grep -qE "differs by (0\.[1-9]|[1-9])" "$folder/seen.txt"
