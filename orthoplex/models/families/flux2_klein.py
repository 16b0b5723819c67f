"""FLUX.2 Klein: a transformer of joint attention; three layers of a language model give the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.errors import BaseModelError
from orthoplex.models.families.autoencoders import NormalizedAutoencoder
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.flow import FROM_NEGATIVE, Guidance, JointFamily
from orthoplex.models.families.flow_check import check_chat, check_flag, check_side, check_sizes
from orthoplex.models.families.layouts.flux2 import LAYOUT
from orthoplex.models.families.parts import load_parts, without_bars
from orthoplex.models.flow_schedule import check_flow_scheduler
from orthoplex.models.problems import all_done
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.prompt_forms import Templated, text_mask
from orthoplex.models.words.words import Reader

with quiet():
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
    from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline, compute_empirical_mu
    from transformers import Qwen3ForCausalLM, Qwen3Model

_NETWORKS = {
    "vae": (AutoencoderKLFlux2,),
    "text_encoder": (Qwen3ForCausalLM, Qwen3Model),
    "transformer": (Flux2Transformer2DModel,),
}
_MAX_LENGTH = 512
"""The positions of the language model in diffusers' pipeline."""
_STATES = (9, 18, 27)
"""The states of the language model that lie side by side."""
_WIDTH_OF_4B = 7680
"""Numbers of a position of text in the small version; 12288 in the large one."""


@final
class Flux2Klein(JointFamily):
    """FLUX.2 Klein, 4B and 9B, distilled and base."""

    changed = ("transformer",)
    weighed = tuple(_NETWORKS)
    text_encoders = ()
    feature_encoder = "text_encoder"
    tokenizers = ("tokenizer",)
    layout = LAYOUT
    combination = FROM_NEGATIVE
    selections = {
        "attention": ("*transformer_blocks.*.attn.*",),
        "linear": ("*transformer_blocks.*.attn.*", "*transformer_blocks.*.ff*"),
    }

    @classmethod
    def load(
        cls, folder: Path, index: Mapping[str, Any], files: Mapping[str, WeightFiles | None], dtype: torch.dtype
    ) -> Flux2KleinPipeline:
        """Load a pipeline; see ``Family.load``."""
        is_distilled = index.get("is_distilled", False)
        check_flag("is_distilled", is_distilled)
        parts = load_parts(cls.parts(), folder, index, files, dtype, _NETWORKS)
        return without_bars(Flux2KleinPipeline(**parts, is_distilled=is_distilled), folder)

    @classmethod
    def version(cls, pipeline: Flux2KleinPipeline) -> str:
        """Return the version by the width of its text."""
        width = pipeline.transformer.config.joint_attention_dim
        return "flux2-klein-4b" if width <= _WIDTH_OF_4B else "flux2-klein-9b"

    @classmethod
    def check(cls, pipeline: Flux2KleinPipeline) -> None:
        """Refuse parts that do not belong together."""
        checks: dict[str, Callable[[], None]] = {
            "vae": partial(_check_autoencoder, pipeline.vae.config),
            "transformer": partial(_check_transformer, pipeline),
            "text_encoder": partial(check_chat, "tokenizer", partial(_reader, pipeline)),
            "scheduler": partial(check_flow_scheduler, pipeline.scheduler),
        }
        all_done(checks)

    @property
    def autoencoder(self) -> NormalizedAutoencoder:
        """The autoencoder."""
        return NormalizedAutoencoder(self.pipeline.vae)

    @property
    def readers(self) -> Sequence[Reader]:
        """The language model with its tokenizer."""
        return (_reader(self.pipeline),)

    def encode(self, ids: Tensor) -> Conditioning:
        """Return three states of the language model side by side, ``(n, length, 3 · width)``, filling included."""
        network = self.pipeline.text_encoder
        ids = ids.to(network.device)
        words = text_mask(self.pipeline.tokenizer, ids)
        states = network.base_model(
            input_ids=ids, attention_mask=words.long(), output_hidden_states=True, use_cache=False
        ).hidden_states
        return Conditioning(torch.cat([states[number] for number in _STATES], dim=-1))

    @property
    def text_width(self) -> int:
        """The width of three states."""
        return self.pipeline.transformer.config.joint_attention_dim

    @property
    def passes_features(self) -> bool:
        """True: ``context_embedder`` reads them unchanged."""
        return True

    @property
    def latent_multiple(self) -> int:
        """One: a position of the latents is a token."""
        return 1

    @property
    def latent_dtype(self) -> torch.dtype:
        """That of the language model."""
        return self.pipeline.text_encoder.dtype

    @property
    def guidance(self) -> Guidance:
        """A second prediction; none in distilled bases."""
        return "none" if self.pipeline.config.is_distilled else "second prediction"

    def shift(self, height: int, width: int, num_inference_steps: int) -> float:
        """What diffusers' pipeline has for a number of tokens and steps."""
        return compute_empirical_mu(image_seq_len=height * width, num_steps=num_inference_steps)

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity."""
        transformer = self.pipeline.transformer
        device, dtype = transformer.device, transformer.dtype
        count, _, height, width = noisy.shape
        given, tokens = conditioning.to(dtype, device), noisy.to(device, dtype).flatten(2).transpose(1, 2)
        length = given.features.shape[1]
        prediction = transformer(
            hidden_states=tokens,
            timestep=times.to(device).expand(count).to(dtype) / 1000,
            guidance=None,
            encoder_hidden_states=given.features,
            txt_ids=_places(1, 1, length, count, device),
            img_ids=_places(height, width, 1, count, device),
            return_dict=False,
        )[0]
        return prediction.transpose(1, 2).unflatten(2, (height, width))


def _reader(pipeline: Flux2KleinPipeline) -> Reader:
    longest = min(_MAX_LENGTH, pipeline.tokenizer.model_max_length)
    return Reader(pipeline, form=Templated.of_chat(pipeline.tokenizer, longest, enable_thinking=False))


def _check_autoencoder(config: Mapping[str, Any]) -> None:
    check_sizes({f"vae {name}": (config[name], "red, green and blue", 3) for name in ("in_channels", "out_channels")})
    if list(config["patch_size"]) != [2, 2]:
        raise BaseModelError(f"vae patch_size is {list(config['patch_size'])}; allowed is [2, 2]")
    check_side(config, 2 ** len(config["block_out_channels"]))


def _check_transformer(pipeline: Flux2KleinPipeline) -> None:
    config, language = pipeline.transformer.config, pipeline.text_encoder.config
    if language.num_hidden_layers < _STATES[-1]:
        raise BaseModelError(
            f"text_encoder num_hidden_layers is {language.num_hidden_layers}; allowed are {_STATES[-1]} or more, as "
            f"the text is the states behind layers {', '.join(map(str, _STATES))}"
        )
    channels, squares = 4 * pipeline.vae.config.latent_channels, "squares of the vae's latents"
    check_sizes(
        {
            "transformer in_channels": (config.in_channels, squares, channels),
            "transformer out_channels": (config.out_channels or channels, squares, channels),
            "transformer patch_size": (config.patch_size, "positions of the latents, each a token", 1),
            "transformer joint_attention_dim": (
                config.joint_attention_dim,
                f"{len(_STATES)} states of the text_encoder",
                len(_STATES) * language.hidden_size,
            ),
            "transformer attention_head_dim": (
                config.attention_head_dim,
                "the sum of axes_dims_rope",
                sum(config.axes_dims_rope),
            ),
        }
    )


def _places(height: int, width: int, length: int, count: int, device: torch.device) -> Tensor:
    """A zero, row, column and position of text of every token, ``(n, height · width · length, 4)`` int64."""
    axes = (torch.arange(1), torch.arange(height), torch.arange(width), torch.arange(length))
    return torch.cartesian_prod(*axes).expand(count, -1, -1).to(device)
