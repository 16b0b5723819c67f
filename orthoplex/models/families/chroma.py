"""Chroma: FLUX.1 without CLIP and without an embedded guidance, and with a mask of its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.files import without_warnings
from orthoplex.models.families.autoencoders import KLAutoencoder
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.flow import FROM_NEGATIVE, Guidance, JointFamily
from orthoplex.models.families.flow_check import check_flow_reader, check_side, check_sizes
from orthoplex.models.families.latent_check import check_autoencoder
from orthoplex.models.families.layouts.chroma import LAYOUT
from orthoplex.models.families.packing import packed, places, unpacked
from orthoplex.models.families.parts import load_parts, without_bars
from orthoplex.models.flow_schedule import check_flow_scheduler
from orthoplex.models.gradient_checkpointing import passed_on
from orthoplex.models.problems import all_done
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.prompt_forms import Marked, text_mask
from orthoplex.models.words.words import Reader

with quiet(), without_warnings():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_chroma import ChromaTransformer2DModel
    from diffusers.pipelines.chroma.pipeline_chroma import ChromaPipeline
    from transformers import T5EncoderModel

_NETWORKS = {
    "vae": (AutoencoderKL,),
    "text_encoder": (T5EncoderModel,),
    "transformer": (ChromaTransformer2DModel,),
}
_MAX_LENGTH = 512
"""The positions of T5 in diffusers' pipeline."""


@final
class Chroma(JointFamily):
    """Chroma.

    Attention sees the words of a prompt, its end, and one position of filling, as the model was trained. diffusers'
    pipeline means the same, and adds its mask of numbers to the scores instead: filling is seen there.
    """

    changed = ("transformer", "text_encoder")
    weighed = tuple(_NETWORKS)
    text_encoders = ("text_encoder",)
    feature_encoder = "text_encoder"
    tokenizers = ("tokenizer",)
    layout = LAYOUT
    combination = FROM_NEGATIVE
    selections = {
        "attention": ("*transformer_blocks.*.attn.*",),
        "linear": ("*transformer_blocks.*.attn.*", "*transformer_blocks.*.ff*", "*transformer_blocks.*.proj_*"),
    }
    text_selections = {"attention": ("*.SelfAttention.*",), "linear": ("text_encoder.encoder.block.*",)}

    @classmethod
    def load(
        cls, folder: Path, index: Mapping[str, Any], files: Mapping[str, WeightFiles | None], dtype: torch.dtype
    ) -> ChromaPipeline:
        """Load a pipeline without what reads pictures; see ``Family.load``."""
        parts = load_parts(cls.parts(), folder, index, files, dtype, _NETWORKS)
        return without_bars(ChromaPipeline(**parts), folder)

    @classmethod
    def version(cls, pipeline: ChromaPipeline) -> str:
        """Return the one version."""
        return "chroma"

    @classmethod
    def check(cls, pipeline: ChromaPipeline) -> None:
        """Refuse parts that do not belong together."""
        transformer, autoencoder = pipeline.transformer.config, pipeline.vae.config
        channels, width = 4 * autoencoder.latent_channels, pipeline.text_encoder.config.d_model
        sizes = {
            "transformer in_channels": (transformer.in_channels, "squares of the vae's latents", channels),
            "transformer joint_attention_dim": (transformer.joint_attention_dim, "text_encoder", width),
        }
        checks: dict[str, Callable[[], None]] = {
            "vae": partial(check_autoencoder, autoencoder),
            "size": partial(check_side, autoencoder, 2 ** len(autoencoder.block_out_channels)),
            "transformer": partial(check_sizes, sizes),
            "text_encoder": partial(check_flow_reader, _reader(pipeline)),
            "scheduler": partial(check_flow_scheduler, pipeline.scheduler),
        }
        all_done(checks)

    @property
    def autoencoder(self) -> KLAutoencoder:
        """The autoencoder."""
        return KLAutoencoder(self.pipeline.vae)

    @property
    def readers(self) -> Sequence[Reader]:
        """T5 with its tokenizer."""
        return (_reader(self.pipeline),)

    def encode(self, ids: Tensor) -> Conditioning:
        """Return T5's last states ``(n, length, width)``, and the mask of the text and one position behind it."""
        network, tokenizer = self.pipeline.text_encoder, self.pipeline.tokenizer
        ids = ids.to(network.device)
        words = text_mask(tokenizer, ids)
        features = network(ids, attention_mask=words.long())[0]
        seen = torch.arange(ids.shape[1], device=ids.device) <= words.sum(1, keepdim=True)
        return Conditioning(features, mask=seen)

    @property
    def text_width(self) -> int:
        """The width of T5's states."""
        return self.pipeline.transformer.config.joint_attention_dim

    @property
    def passes_features(self) -> bool:
        """False: positions behind the text are left out first."""
        return False

    @property
    def latent_multiple(self) -> int:
        """Two: squares of four positions are one token."""
        return 2

    @property
    def latent_dtype(self) -> torch.dtype:
        """That of T5."""
        return self.pipeline.text_encoder.dtype

    @property
    def guidance(self) -> Guidance:
        """A second prediction."""
        return "second prediction"

    def shift(self, height: int, width: int, num_inference_steps: int) -> float:
        """Linear in the number of tokens; only schedulers with dynamic shifting read it."""
        return self.size_shift(height, width)

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity."""
        transformer = self.pipeline.transformer
        device, dtype = transformer.device, transformer.dtype
        height, width = noisy.shape[2:]
        tokens, given = packed(noisy.to(device, dtype)), conditioning.to(dtype, device).trimmed()
        seen = None
        if given.mask is not None and not given.mask.all():
            seen = torch.cat([given.mask, given.mask.new_ones(len(tokens), tokens.shape[1])], dim=1)
        with passed_on(transformer.single_transformer_blocks, attention_mask=seen):  # diffusers 0.42 forgets it there
            prediction = transformer(
                hidden_states=tokens,
                timestep=times.to(device).expand(len(noisy)).to(dtype) / 1000,
                encoder_hidden_states=given.features,
                txt_ids=given.features.new_zeros(given.features.shape[1], 3),
                img_ids=places(height, width, tokens),
                attention_mask=seen,
                return_dict=False,
            )[0]
        return unpacked(prediction, height, width)


def _reader(pipeline: ChromaPipeline) -> Reader:
    return Reader(pipeline, form=Marked(marks=1, max_length=min(_MAX_LENGTH, pipeline.tokenizer.model_max_length)))
