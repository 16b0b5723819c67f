#!/usr/bin/env bash
# Library: diffusers 0.42.1 (torch 2.13.0, CPU).
# Behaviour: DPMSolverMultistepScheduler and UniPCMultistepScheduler with "leading" spacing and an offset of 1, which is
#   what they become when they are built from the configuration of a Stable Diffusion 1.5 scheduler, take the largest
#   number of steps, 1000, without a word: all of the 1000 timesteps are 1, and after two steps the sample holds no
#   finite number. With 999 steps the first timestep is 1000, one more than the model was trained on.
# Expected: timesteps from 999 down, as with "linspace", or an error that names the limit.
# Seen: for both "leading 1000: 1000 timesteps, 1 of them different, from 1 to 1; finite False",
#   "leading 999: 999 timesteps, 999 of them different, from 1000 to 2; finite False",
#   "leading 998: 998 timesteps, 998 of them different, from 999 to 2; finite True" and
#   "linspace 1000: 1000 timesteps, 999 of them different, from 999 to 1; finite True".
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

for kind in (DPMSolverMultistepScheduler, UniPCMultistepScheduler):
    for spacing, steps in (("leading", 1000), ("leading", 999), ("leading", 998), ("linspace", 1000)):
        scheduler = kind(beta_schedule="scaled_linear", steps_offset=1, timestep_spacing=spacing)
        scheduler.set_timesteps(steps)
        times = scheduler.timesteps.tolist()
        sample = torch.ones(1, 4, 8, 8)
        for time in scheduler.timesteps[:2]:
            sample = scheduler.step(torch.ones_like(sample), time, sample).prev_sample
        print(
            f"{kind.__name__} {spacing} {steps}: {len(times)} timesteps, {len(set(times))} of them different, "
            f"from {times[0]} to {times[-1]}; finite {bool(torch.isfinite(sample).all())}"
        )
PYTHON
for kind in DPMSolverMultistepScheduler UniPCMultistepScheduler; do
  grep -q "$kind leading 1000: 1000 timesteps, 1 of them different, from 1 to 1; finite False" seen.txt
  grep -q "$kind leading 999: 999 timesteps, 999 of them different, from 1000 to 2; finite False" seen.txt
  grep -q "$kind linspace 1000: 1000 timesteps, 999 of them different, from 999 to 1; finite True" seen.txt
done
