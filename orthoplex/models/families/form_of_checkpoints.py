"""Checkpoint files: what tells the family of a file of weights, and which part of a pipeline lies where; without torch.

Also of families whose pipelines are not loaded, so that such a file is refused by its family's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

_INNER = "model.diffusion_model."
"""In front of a denoiser's names, where a file holds more than the denoiser, and often where it does not."""
_NET = "net."
SCHEDULE_MARKS: Mapping[str, Mapping[str, object]] = {
    "v_pred": {"prediction_type": "v_prediction"},
    "ztsnr": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
}
"""Names of tensors without numbers in files of Stable Diffusion, to the settings of the scheduler that they stand for.

ComfyUI and others read them so: the denoiser predicts v; the last of its timesteps is pure noise (arXiv 2305.08891).
"""
OTHER_SCHEDULE = "edm_"
"""What tensors of files whose denoiser was trained on EDM's shares of noise begin with, as ``edm_mean``."""


@final
@dataclass(frozen=True)
class CheckpointForm:
    """The checkpoint files of a family.

    Attributes:
        title: The family as its users name it.
        marks: Beginnings of names; a file of the family has a name for each of them.
        parts: Component to the beginnings of its names; all others belong to nothing.
        configs: Names on the hub of pipelines whose settings and tokenizers fit, the best first.
    """

    title: str
    marks: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    configs: tuple[str, ...]

    def fits(self, names: Iterable[str]) -> bool:
        """Return True if a file of these tensors is one of the family."""
        known = [name.removeprefix(_INNER) for name in names]
        return all(any(name.startswith(mark) for name in known) for mark in self.marks)

    def held(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """Return component to its tensors, without components of which a file holds none."""
        every = list(names)
        held = {
            part: frozenset(name for name in every if name.startswith(starts)) for part, starts in self.parts.items()
        }
        return {part: own for part, own in held.items() if own}


def _transformer(*starts: str, encoders: Mapping[str, str] | None = None) -> dict[str, tuple[str, ...]]:
    """The parts of a file that holds a transformer, with or without the other parts as ComfyUI names them."""
    others = {part: (f"text_encoders.{name}.",) for part, name in (encoders or {}).items()}
    return {"transformer": (_INNER, *starts), "vae": ("vae.", "first_stage_model."), **others}


_FLUX_STARTS = ("img_in.", "txt_in.", "time_in.", "vector_in.", "guidance_in.", "double_blocks.", "single_blocks.") + (
    "final_layer.",
)
CHECKPOINTS: Mapping[str, CheckpointForm] = {
    "StableDiffusionXLPipeline": CheckpointForm(
        "Stable Diffusion XL",
        ("input_blocks.", "label_emb."),
        {
            "unet": (_INNER,),
            "vae": ("first_stage_model.",),
            "text_encoder": ("conditioner.embedders.0.transformer.",),
            "text_encoder_2": ("conditioner.embedders.1.model.",),
        },
        ("stabilityai/stable-diffusion-xl-base-1.0",),
    ),
    "StableDiffusionPipeline": CheckpointForm(
        "Stable Diffusion",
        ("input_blocks.", "output_blocks."),
        {"unet": (_INNER,), "vae": ("first_stage_model.",), "text_encoder": ("cond_stage_model.",)},
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
    ),
    "ChromaPipeline": CheckpointForm(
        "Chroma",
        ("distilled_guidance_layer.", "double_blocks."),
        _transformer(*_FLUX_STARTS, "distilled_guidance_layer.", encoders={"text_encoder": "t5xxl"}),
        ("lodestones/Chroma1-HD",),
    ),
    "Flux2KleinPipeline": CheckpointForm(
        "FLUX.2 Klein",
        ("single_stream_modulation.", "double_blocks."),
        _transformer(*_FLUX_STARTS, "double_stream_modulation_img.", "double_stream_modulation_txt.", "single_stream_"),
        ("black-forest-labs/FLUX.2-klein-4B", "black-forest-labs/FLUX.2-klein-9B"),
    ),
    "FluxPipeline": CheckpointForm(
        "FLUX.1",
        ("double_blocks.", "vector_in."),
        _transformer(*_FLUX_STARTS, encoders={"text_encoder": "clip_l", "text_encoder_2": "t5xxl"}),
        ("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell"),
    ),
    "ZImagePipeline": CheckpointForm(
        "Z-Image",
        ("cap_embedder.", "noise_refiner.", "layers."),
        _transformer(
            *("cap_embedder.", "cap_pad_token", "x_embedder.", "x_pad_token", "t_embedder.", "noise_refiner."),
            *("context_refiner.", "layers.", "final_layer.", "all_x_embedder.", "all_final_layer."),
        ),
        ("Tongyi-MAI/Z-Image-Turbo",),
    ),
    "Krea2Pipeline": CheckpointForm(
        "Krea 2",
        ("txtfusion.", "tmlp."),
        _transformer("first.", "tmlp.", "tproj.", "txtmlp.", "txtfusion.", "blocks.", "last."),
        ("krea/Krea-2-Raw",),
    ),
    "QwenImagePipeline": CheckpointForm(
        "Qwen-Image",
        ("transformer_blocks.", "img_in.", "txt_norm."),
        _transformer(
            *("transformer_blocks.", "img_in.", "txt_in.", "txt_norm.", "time_text_embed.", "norm_out.", "proj_out.")
        ),
        ("Qwen/Qwen-Image",),
    ),
    "AnimaModularPipeline": CheckpointForm(
        "Anima",
        (f"{_NET}llm_adapter.", f"{_NET}blocks."),
        {
            "transformer": tuple(
                f"{_NET}{name}." for name in ("x_embedder", "t_embedder", "t_embedding_norm", "blocks", "final_layer")
            ),
            "text_conditioner": (f"{_NET}llm_adapter.",),
        },
        (),
    ),
}  # fmt: skip
"""Pipeline class to its files, the narrower forms first."""


def checkpoint_class(names: Iterable[str]) -> str | None:
    """Return the pipeline class of a file of weights by the names of its tensors; None if no family has such files."""
    every = list(names)
    return next((kind for kind, form in CHECKPOINTS.items() if form.fits(every)), None)
