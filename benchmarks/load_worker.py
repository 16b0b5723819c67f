"""Load a pipeline folder once, by diffusers or by ``load_base``, and print what it took.

Usage: ``python load_worker.py diffusers|orthoplex float16|float32 FOLDER``; ``PYTHONPATH`` chooses the Orthoplex.
"""

from __future__ import annotations

import json
import sys
import time

import torch


def main(loader: str, dtype_name: str, folder: str) -> None:
    """Load and print one line of JSON: seconds, CPU-seconds and the package's place."""
    dtype = getattr(torch, dtype_name)
    if loader == "diffusers":
        from diffusers import StableDiffusionPipeline

        place = ""
        began = time.perf_counter(), time.process_time()
        pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=dtype, safety_checker=None)
    else:
        import orthoplex
        from orthoplex.models import load_base

        place = orthoplex.__file__
        began = time.perf_counter(), time.process_time()
        pipeline = load_base(folder, dtype=dtype).pipeline
    seconds, cpu_seconds = time.perf_counter() - began[0], time.process_time() - began[1]
    if {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} != {dtype}:
        sys.exit(f"not everything is {dtype}")
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "package": place}))


if __name__ == "__main__":
    main(*sys.argv[1:])
