"""FLUX.1: a transformer of joint attention; T5 gives the text, CLIP one vector of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.models.families.autoencoders import KLAutoencoder
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.flow import FROM_NEGATIVE, Guidance, JointFamily
from orthoplex.models.families.flow_check import check_flow_reader, check_side, check_sizes
from orthoplex.models.families.latent_check import check_autoencoder
from orthoplex.models.families.layouts.flux import LAYOUT
from orthoplex.models.families.packing import packed, places, unpacked
from orthoplex.models.families.parts import load_parts, without_bars
from orthoplex.models.flow_schedule import check_flow_scheduler
from orthoplex.models.problems import all_done
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.prompt_forms import Marked
from orthoplex.models.words.words import Reader

with quiet():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
    from transformers import CLIPTextModel, T5EncoderModel

_NETWORKS = {
    "vae": (AutoencoderKL,),
    "text_encoder": (CLIPTextModel,),
    "text_encoder_2": (T5EncoderModel,),
    "transformer": (FluxTransformer2DModel,),
}
MAX_LENGTH = 512
"""The positions of T5 in diffusers' pipeline."""


@final
class Flux(JointFamily):
    """FLUX.1 dev, Krea, Kontext as a model of text alone, and schnell."""

    changed = ("transformer", "text_encoder", "text_encoder_2")
    weighed = tuple(_NETWORKS)
    text_encoders = ("text_encoder", "text_encoder_2")
    feature_encoder = "text_encoder_2"
    tokenizers = ("tokenizer", "tokenizer_2")
    layout = LAYOUT
    combination = FROM_NEGATIVE
    selections = {
        "attention": ("*transformer_blocks.*.attn.*",),
        "linear": ("*transformer_blocks.*.attn.*", "*transformer_blocks.*.ff*", "*transformer_blocks.*.proj_*"),
    }
    text_selections = {
        "attention": ("text_encoder.*.self_attn.*", "text_encoder_2.*.SelfAttention.*"),
        "linear": ("text_encoder.*.self_attn.*", "text_encoder.*.mlp.*", "text_encoder_2.encoder.block.*"),
    }

    @classmethod
    def load(
        cls, folder: Path, index: Mapping[str, Any], files: Mapping[str, WeightFiles | None], dtype: torch.dtype
    ) -> FluxPipeline:
        """Load a pipeline without what reads pictures; see ``Family.load``."""
        parts = load_parts(cls.parts(), folder, index, files, dtype, _NETWORKS)
        return without_bars(FluxPipeline(**parts), folder)

    @classmethod
    def version(cls, pipeline: FluxPipeline) -> str:
        """Return the one version."""
        return "flux1"

    @classmethod
    def check(cls, pipeline: FluxPipeline) -> None:
        """Refuse parts that do not belong together."""
        transformer, autoencoder = pipeline.transformer.config, pipeline.vae.config
        width, pooled = pipeline.text_encoder_2.config.d_model, pipeline.text_encoder.config.hidden_size
        checks: dict[str, Callable[[], None]] = {
            "vae": partial(check_autoencoder, autoencoder),
            "size": partial(check_side, autoencoder, 2 ** len(autoencoder.block_out_channels)),
            "transformer": partial(
                check_sizes,
                {
                    "transformer in_channels": (
                        transformer.in_channels,
                        "squares of the vae's latents",
                        4 * autoencoder.latent_channels,
                    ),
                    "transformer joint_attention_dim": (transformer.joint_attention_dim, "text_encoder_2", width),
                    "transformer pooled_projection_dim": (transformer.pooled_projection_dim, "text_encoder", pooled),
                },
            ),
            **{reader.component: partial(check_flow_reader, reader) for reader in _readers(pipeline)},
            "scheduler": partial(check_flow_scheduler, pipeline.scheduler),
        }
        all_done(checks)

    @property
    def autoencoder(self) -> KLAutoencoder:
        """The autoencoder."""
        return KLAutoencoder(self.pipeline.vae)

    @property
    def readers(self) -> Sequence[Reader]:
        """CLIP and T5 with their tokenizers."""
        return _readers(self.pipeline)

    def encode(self, ids: Tensor) -> Conditioning:
        """Return T5's last states ``(n, length, width)``; ``pooled`` is CLIP's vector of each prompt."""
        parts, (clip, t5) = self.words.apart(ids), (self.pipeline.text_encoder, self.pipeline.text_encoder_2)
        pooled = clip(parts["text_encoder"].to(clip.device)).pooler_output
        features = t5(parts["text_encoder_2"].to(t5.device))[0]
        return Conditioning(features, {"pooled": pooled})

    @property
    def text_width(self) -> int:
        """The width of T5's states."""
        return self.pipeline.transformer.config.joint_attention_dim

    @property
    def passes_features(self) -> bool:
        """True: ``context_embedder`` reads them unchanged."""
        return True

    @property
    def latent_multiple(self) -> int:
        """Two: squares of four positions are one token."""
        return 2

    @property
    def latent_dtype(self) -> torch.dtype:
        """That of T5."""
        return self.pipeline.text_encoder_2.dtype

    @property
    def guidance(self) -> Guidance:
        """Embedded; schnell follows none."""
        return "embedded" if self.pipeline.transformer.config.guidance_embeds else "none"

    def shift(self, height: int, width: int, num_inference_steps: int) -> float:
        """Linear in the number of tokens."""
        return self.size_shift(height, width)

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity; prompts without a guidance get 1, at which a distilled base is as it was before."""
        transformer = self.pipeline.transformer
        device, dtype = transformer.device, transformer.dtype
        height, width = noisy.shape[2:]
        tokens, given = packed(noisy.to(device, dtype)), conditioning.to(dtype, device)
        guidance = None
        if self.guidance == "embedded":
            guidance = conditioning.extras.get("guidance", torch.ones(len(noisy))).to(device, torch.float32)
        prediction = transformer(
            hidden_states=tokens,
            timestep=times.to(device).expand(len(noisy)).to(dtype) / 1000,
            guidance=guidance,
            pooled_projections=given.extras["pooled"],
            encoder_hidden_states=given.features,
            txt_ids=given.features.new_zeros(given.features.shape[1], 3),
            img_ids=places(height, width, tokens),
            return_dict=False,
        )[0]
        return unpacked(prediction, height, width)


def _readers(pipeline: FluxPipeline) -> tuple[Reader, Reader]:
    longest = min(MAX_LENGTH, pipeline.tokenizer_2.model_max_length)
    return (
        Reader(pipeline, is_pooled=True),
        Reader(pipeline, "text_encoder_2", "tokenizer_2", Marked(marks=1, max_length=longest)),
    )
