"""Anima: Cosmos-Predict2, whose cross-attention reads T5's words as a conditioner fills them from a language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from orthoplex.errors import BaseModelError
from orthoplex.models.families.autoencoders import FrameAutoencoder
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.flow import FROM_NEGATIVE, FlowFamily, Guidance
from orthoplex.models.families.flow_check import check_flow_reader, check_frames, check_sizes
from orthoplex.models.families.layouts.anima import LAYOUT
from orthoplex.models.families.parts import load_parts
from orthoplex.models.families.without_torchvision import complete_cosmos
from orthoplex.models.flow_schedule import check_flow_scheduler
from orthoplex.models.problems import all_done
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.prompt_forms import Bare, Marked, text_mask
from orthoplex.models.words.words import Reader

with quiet():
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
    from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
    from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
    from diffusers.modular_pipelines.anima.modular_pipeline import AnimaModularPipeline
    from transformers import Qwen3Model

_NETWORKS = {
    "vae": (AutoencoderKLQwenImage,),
    "text_encoder": (Qwen3Model,),
    "text_conditioner": (AnimaTextConditioner,),
    "transformer": (CosmosTransformer3DModel,),
}
_OF_SOURCE = "text_conditioner.*.cross_attn.[kv]_proj"
_MAX_LENGTH = 512
"""The tokens of either tokenizer in diffusers' pipeline."""


@final
class Anima(FlowFamily):
    """Anima, as a model of text alone.

    A prompt has two readings. The language model gives the states of its tokens; the conditioner embeds T5's tokens
    itself, and lets them attend to these states. A concept's token is a word of both.
    """

    changed = ("transformer", "text_conditioner")
    weighed = tuple(_NETWORKS)
    text_encoders = ("text_conditioner",)
    feature_encoder = "text_conditioner"
    tokenizers = ("tokenizer", "t5_tokenizer")
    layout = LAYOUT
    combination = FROM_NEGATIVE
    selections = {
        "cross-attention-kv": ("transformer.*.attn2.to_k", "transformer.*.attn2.to_v"),
        "cross-attention": ("transformer.*.attn2.*",),
        "attention": ("transformer.*.attn[12].*",),
        "linear": ("transformer.*.attn[12].*", "transformer.*.ff.*"),
    }
    text_selections = {
        "cross-attention-kv": ("text_conditioner.*_attn.*",),
        "cross-attention": ("text_conditioner.*_attn.*",),
        "attention": ("text_conditioner.*_attn.*",),
        "linear": ("text_conditioner.blocks.*",),
    }

    @classmethod
    def load(
        cls, folder: Path, index: Mapping[str, Any], files: Mapping[str, WeightFiles | None], dtype: torch.dtype
    ) -> AnimaModularPipeline:
        """Load a pipeline; see ``Family.load``."""
        complete_cosmos()
        parts = load_parts(cls.parts(), folder, index, files, dtype, _NETWORKS)
        with quiet():
            pipeline = AnimaModularPipeline()
            pipeline.update_components(**parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @classmethod
    def version(cls, pipeline: AnimaModularPipeline) -> str:
        """Return the one version."""
        return "anima"

    @classmethod
    def check(cls, pipeline: AnimaModularPipeline) -> None:
        """Refuse parts that do not belong together."""
        checks: dict[str, Callable[[], None]] = {
            "vae": partial(check_frames, pipeline.vae.config),
            "text_conditioner": partial(_check_conditioner, pipeline),
            "transformer": partial(_check_transformer, pipeline),
            "scheduler": partial(_check_scheduler, pipeline.scheduler),
        }
        all_done(checks)
        all_done({reader.component: partial(check_flow_reader, reader) for reader in _readers(pipeline)})

    @property
    def autoencoder(self) -> FrameAutoencoder:
        """The autoencoder."""
        return FrameAutoencoder(self.pipeline.vae)

    @property
    def readers(self) -> Sequence[Reader]:
        """The language model and the conditioner, with their tokenizers."""
        return _readers(self.pipeline)

    def cross_attention(self) -> Mapping[str, nn.Module]:
        """The second attention of every block, whose keys and values are normalized behind their projections."""
        return {
            f"transformer.transformer_blocks.{number}.attn2": block.attn2
            for number, block in enumerate(self.pipeline.transformer.transformer_blocks)
        }

    def reader_of(self, layer: str) -> str:
        """Return the text encoder of a layer's positions; the conditioner's cross-attention reads the other's."""
        return "text_encoder" if fnmatchcase(layer, _OF_SOURCE) else super().reader_of(layer)

    def encode(self, ids: Tensor) -> Conditioning:
        """Return what the conditioner makes of prompts, ``(n, length, width)``, zero behind T5's words."""
        network, conditioner = self.pipeline.text_encoder, self.pipeline.text_conditioner
        parts = self.words.apart(ids)
        source, own = parts["text_encoder"].to(network.device), parts["text_conditioner"].to(conditioner.device)
        source, words = _up_to_the_longest(source, text_mask(self.pipeline.tokenizer, source))
        own, targets = _up_to_the_longest(own, text_mask(self.pipeline.t5_tokenizer, own))
        states = network(input_ids=source, attention_mask=words.long(), output_hidden_states=False).last_hidden_state
        features = conditioner(
            source_hidden_states=(states * words.unsqueeze(2)).to(conditioner.device, conditioner.dtype),
            target_input_ids=own,
            target_attention_mask=targets,
            source_attention_mask=words.to(conditioner.device),
        )
        return Conditioning(features)

    @property
    def text_width(self) -> int:
        """The width of what the conditioner makes."""
        return self.pipeline.transformer.config.text_embed_dim

    @property
    def passes_features(self) -> bool:
        """True: cross-attention reads them unchanged."""
        return True

    @property
    def latent_multiple(self) -> int:
        """Two: squares of four positions are one token."""
        return 2

    @property
    def latent_dtype(self) -> torch.dtype:
        """float32, whatever the networks compute in."""
        return torch.float32

    @property
    def guidance(self) -> Guidance:
        """A second prediction."""
        return "second prediction"

    def shift(self, height: int, width: int, num_inference_steps: int) -> float:
        """One: the scheduler's own shift is a constant."""
        return 1.0

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity."""
        transformer = self.pipeline.transformer
        device, dtype = transformer.device, transformer.dtype
        latents = noisy.to(device, dtype).unsqueeze(2)
        return transformer(
            hidden_states=latents,
            timestep=times.to(device).expand(len(noisy)).to(dtype) / 1000,
            encoder_hidden_states=conditioning.to(dtype, device).features,
            padding_mask=latents.new_zeros(1, 1, *latents.shape[3:]),
            return_dict=False,
        )[0].squeeze(2)

    def leave(self) -> None:
        """Nothing: modular pipelines bring no network to a device for a picture."""


def _up_to_the_longest(ids: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Return token ids and their mask up to the last word of any prompt, one position at least."""
    length = max(1, int(words.sum(1).amax()))
    return ids[:, :length], words[:, :length]


def _readers(pipeline: AnimaModularPipeline) -> tuple[Reader, Reader]:
    length = min(_MAX_LENGTH, pipeline.tokenizer.model_max_length)
    own = pipeline.text_conditioner.config.min_sequence_length
    return (
        Reader(pipeline, form=Bare(length)),
        Reader(
            pipeline,
            "text_conditioner",
            "t5_tokenizer",
            Marked(marks=1, max_length=own),
            embedding="embed",
            size_setting="target_vocab_size",
            ids_keyword="target_input_ids",
            source="text_encoder",
        ),
    )


def _check_conditioner(pipeline: AnimaModularPipeline) -> None:
    config, width = pipeline.text_conditioner.config, pipeline.text_encoder.config.hidden_size
    check_sizes({"text_conditioner source_dim": (config.source_dim, "text_encoder", width)})
    length = config.min_sequence_length
    if type(length) is not int or not 1 < length <= _MAX_LENGTH:
        raise BaseModelError(
            f"text_conditioner min_sequence_length is {length!r}; allowed are 2 to {_MAX_LENGTH}, the tokens that the "
            "pipeline reads of a prompt"
        )


def _check_transformer(pipeline: AnimaModularPipeline) -> None:
    config, channels = pipeline.transformer.config, pipeline.vae.config.z_dim
    for setting, allowed in {"use_crossattn_projection": False, "img_context_dim_in": None}.items():
        if config[setting] != allowed:
            raise BaseModelError(f"transformer {setting} is {config[setting]!r}; allowed is {allowed}")
    width = pipeline.text_conditioner.config.target_dim
    check_sizes(
        {
            "transformer in_channels": (config.in_channels, "the vae's latents", channels),
            "transformer out_channels": (config.out_channels, "the vae's latents", channels),
            "transformer text_embed_dim": (config.text_embed_dim, "text_conditioner", width),
        }
    )
    if list(config.patch_size) != [1, 2, 2]:
        raise BaseModelError(f"transformer patch_size is {config.patch_size!r}; allowed is (1, 2, 2)")


def _check_scheduler(scheduler: Any) -> None:  # noqa: ANN401  (diffusers' schedulers share no typed parent)
    check_flow_scheduler(scheduler)
    if scheduler.config.use_dynamic_shifting:
        raise BaseModelError("scheduler use_dynamic_shifting is True; allowed is False, as its pipeline gives no size")
