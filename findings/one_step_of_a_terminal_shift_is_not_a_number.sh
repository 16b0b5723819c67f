#!/usr/bin/env bash
# Library: diffusers 0.42.1 (torch 2.13.0, CPU).
# Behaviour: FlowMatchEulerDiscreteScheduler with a shift_terminal, as the scheduler of Qwen-Image is published, makes
#   one step from a time that is not a number: the time is stretched so that the last one gets the terminal value, by a
#   division by its distance from pure noise, which is 0 when the only time is that of pure noise. numpy warns of a
#   division; nothing is raised, and the sample, from which a pipeline makes a black picture, holds no finite number.
# Expected: one step from pure noise to the picture, as without a shift_terminal, or an error that names the least
#   number of steps.
# Seen: "shift_terminal 0.02, 1 steps: times [nan]; finite False",
#   "shift_terminal 0.02, 2 steps: times [1000.0, 20.0]; finite True" and
#   "shift_terminal None, 1 steps: times [1000.0]; finite True".
# Date: 2026-12-01
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

for terminal, steps in ((0.02, 1), (0.02, 2), (None, 1)):
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=terminal
    )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=0.7)  # these two lines as in the pipeline
    scheduler.set_begin_index(0)
    sample = torch.ones(1, 4, 8, 8)
    for time in scheduler.timesteps:
        sample = scheduler.step(torch.ones_like(sample), time, sample).prev_sample
    times = [round(time, 1) for time in scheduler.timesteps.tolist()]
    print(f"shift_terminal {terminal}, {steps} steps: times {times}; finite {bool(torch.isfinite(sample).all())}")
PYTHON
grep -q "shift_terminal 0.02, 1 steps: times \[nan\]; finite False" seen.txt
grep -q "shift_terminal 0.02, 2 steps: times \[1000.0, 20.0\]; finite True" seen.txt
grep -q "shift_terminal None, 1 steps: times \[1000.0\]; finite True" seen.txt
