"""The pipelines that can be a base, and what text encoders return, without the notices that importing them logs."""

from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from transformers.utils.generic import ModelOutput

__all__ = ["ModelOutput", "StableDiffusionPipeline"]
