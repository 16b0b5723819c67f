#!/usr/bin/env bash
# Library: torch 2.13.0 (CPU build with oneDNN), on a processor with AMX, with two threads.
# Behaviour: torch.bmm gives the bfloat16 product of a matrix pair other bits when the pair is alone in its batch than
#   when it is one of two or twelve. With one thread the bits are the same in every batch.
# Expected: a batched product computes each matrix by itself, so that what else is in the batch changes no bit, and what
#   is computed in pieces equals what is computed at once.
# Seen: "threads 1: of 12 products differ alone 0, in pairs 0" and "threads 2: of 12 products differ alone 12, in pairs 0".
#   Without AMX it says so and ends.
# Date: 2026-12-01
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 numpy==2.4.6 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import torch

if not torch.cpu._is_amx_tile_supported():
    print("no AMX")
    raise SystemExit
generator = torch.Generator().manual_seed(0)
ups = (torch.randn(12, 1280, 300, generator=generator) * 0.1).bfloat16()
downs = (torch.randn(12, 300, 1280, generator=generator) * 0.1).bfloat16()
for threads in (1, 2):
    torch.set_num_threads(threads)
    together = torch.bmm(ups, downs)
    differ = {}
    for size in (1, 2):
        apart = torch.cat([torch.bmm(ups[i : i + size], downs[i : i + size]) for i in range(0, 12, size)])
        differ[size] = sum(not torch.equal(one, other) for one, other in zip(apart, together))
    print(f"threads {threads}: of 12 products differ alone {differ[1]}, in pairs {differ[2]}")
PYTHON
grep -q "no AMX" seen.txt && exit 0
grep -q "threads 1: of 12 products differ alone 0, in pairs 0" seen.txt
grep -q "threads 2: of 12 products differ alone 12, in pairs 0" seen.txt
