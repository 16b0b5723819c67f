"""The diffusers pipelines that can be a base, imported without the notices that their import logs."""

from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

__all__ = ["StableDiffusionPipeline"]
