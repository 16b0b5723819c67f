"""Krea 2: a transformer of one stream, which mixes the states of several layers of a language model first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.errors import BaseModelError
from orthoplex.models.families.autoencoders import FrameAutoencoder
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.flow import BEYOND, Guidance, JointFamily
from orthoplex.models.families.flow_check import (
    check_flag,
    check_frames,
    check_sizes,
)
from orthoplex.models.families.layouts.krea2 import LAYOUT
from orthoplex.models.families.packing import packed, places, unpacked
from orthoplex.models.families.parts import load_parts, without_bars
from orthoplex.models.families.qwen_template import NUM_BEFORE, check_template_reader, template_reader
from orthoplex.models.flow_schedule import NUM_TIMES, check_flow_scheduler
from orthoplex.models.problems import all_done
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.prompt_forms import text_mask
from orthoplex.models.words.words import Reader

with quiet():
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
    from diffusers.models.transformers.transformer_krea2 import Krea2Transformer2DModel
    from diffusers.pipelines.krea2.pipeline_krea2 import Krea2Pipeline
    from transformers import Qwen3VLModel

_NETWORKS = {
    "vae": (AutoencoderKLQwenImage,),
    "text_encoder": (Qwen3VLModel,),
    "transformer": (Krea2Transformer2DModel,),
}
_MAX_LENGTH = 512
"""The positions behind the template's beginning in diffusers' pipeline."""
_SETTINGS = ("text_encoder_select_layers", "is_distilled", "patch_size")
"""What ``model_index.json`` says besides its parts."""
_SHIFT_OF_DISTILLED = 1.15


@final
class Krea2(JointFamily):
    """Krea 2, base and distilled.

    Features hold the states of the chosen layers side by side. The transformer sees no positions of text: what fills
    up within a prompt is left out.
    """

    changed = ("transformer",)
    weighed = tuple(_NETWORKS)
    text_encoders = ()
    feature_encoder = "text_encoder"
    tokenizers = ("tokenizer",)
    layout = LAYOUT
    combination = BEYOND
    selections = {
        "attention": ("transformer.transformer_blocks.*.attn.*",),
        "linear": ("transformer.*blocks.*.attn.*", "transformer.*blocks.*.ff.*"),
    }

    @classmethod
    def load(
        cls, folder: Path, index: Mapping[str, Any], files: Mapping[str, WeightFiles | None], dtype: torch.dtype
    ) -> Krea2Pipeline:
        """Load a pipeline; see ``Family.load``."""
        settings = {name: index[name] for name in _SETTINGS if name in index}
        _check_settings(settings)
        parts = load_parts(cls.parts(), folder, index, files, dtype, _NETWORKS)
        return without_bars(Krea2Pipeline(**parts, **settings), folder)

    @classmethod
    def version(cls, pipeline: Krea2Pipeline) -> str:
        """Return the one version."""
        return "krea2"

    @classmethod
    def check(cls, pipeline: Krea2Pipeline) -> None:
        """Refuse parts that do not belong together."""
        checks: dict[str, Callable[[], None]] = {
            "vae": partial(check_frames, pipeline.vae.config),
            "transformer": partial(_check_transformer, pipeline),
            "text_encoder": lambda: check_template_reader(_reader(pipeline)),
            "scheduler": partial(check_flow_scheduler, pipeline.scheduler),
        }
        all_done(checks)

    @property
    def autoencoder(self) -> FrameAutoencoder:
        """The autoencoder."""
        return FrameAutoencoder(self.pipeline.vae)

    @property
    def readers(self) -> Sequence[Reader]:
        """The language model with its tokenizer."""
        return (_reader(self.pipeline),)

    def encode(self, ids: Tensor) -> Conditioning:
        """Return states of the language model ``(n, length, layers · width)``, and the mask of the text.

        Positions are counted over the text alone: what fills up within a prompt has none.
        """
        network = self.pipeline.text_encoder
        ids = ids.to(network.device)
        words = text_mask(self.pipeline.tokenizer, ids)
        positions = (words.long().cumsum(dim=-1) - 1).clamp(min=0)
        output = network(
            input_ids=ids,
            attention_mask=words,
            position_ids=positions.unsqueeze(0).expand(3, -1, -1),
            output_hidden_states=True,
        )
        states = torch.cat([output.hidden_states[layer] for layer in self.pipeline.text_encoder_select_layers], dim=2)
        return Conditioning(states[:, NUM_BEFORE:], mask=words[:, NUM_BEFORE:])

    @property
    def text_width(self) -> int:
        """The width of the language model's states, times the number of layers."""
        config = self.pipeline.transformer.config
        return config.num_text_layers * config.text_hidden_dim

    @property
    def passes_features(self) -> bool:
        """False: the transformer mixes them first."""
        return False

    @property
    def latent_multiple(self) -> int:
        """The side of the squares of positions that are one token."""
        return self.pipeline.patch_size

    @property
    def latent_dtype(self) -> torch.dtype:
        """That of the language model."""
        return self.pipeline.text_encoder.dtype

    @property
    def guidance(self) -> Guidance:
        """A second prediction; none in distilled bases."""
        return "none" if self.pipeline.config.is_distilled else "second prediction"

    def shift(self, height: int, width: int, num_inference_steps: int) -> float:
        """Linear in the number of tokens; the same for all sizes in distilled bases."""
        if self.pipeline.config.is_distilled:
            return _SHIFT_OF_DISTILLED
        return self.size_shift(height, width)

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity."""
        transformer, side = self.pipeline.transformer, self.latent_multiple
        device, dtype = transformer.device, transformer.dtype
        height, width = noisy.shape[2:]
        given = conditioning.to(dtype, device).gathered()
        text = given.features.unflatten(2, (transformer.config.num_text_layers, -1))
        text_places = torch.zeros(text.shape[1], 3, device=device)
        prediction = transformer(
            hidden_states=packed(noisy.to(device, dtype), side),
            encoder_hidden_states=text,
            timestep=(times.to(device) / NUM_TIMES).expand(len(noisy)).to(dtype),
            position_ids=torch.cat([text_places, places(height, width, text_places, side)]),
            encoder_attention_mask=None if given.mask is None or given.mask.all() else given.mask,
            return_dict=False,
        )[0]
        return unpacked(prediction, height, width, side)


def _reader(pipeline: Krea2Pipeline) -> Reader:
    return template_reader(pipeline, _MAX_LENGTH, filled_within=True)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse values of ``model_index.json`` of other kinds."""
    layers = settings.get("text_encoder_select_layers")
    if layers is not None and not (
        isinstance(layers, list) and layers and all(type(layer) is int and layer >= 0 for layer in layers)
    ):
        raise BaseModelError(f"text_encoder_select_layers is {layers!r}; allowed are numbers of layers from 0 on")
    check_flag("is_distilled", settings.get("is_distilled", False))
    side = settings.get("patch_size", 2)
    if type(side) is not int or side < 1:
        raise BaseModelError(f"patch_size is {side!r}; allowed are whole numbers from 1 on")


def _check_transformer(pipeline: Krea2Pipeline) -> None:
    config, side = pipeline.transformer.config, pipeline.patch_size
    language, layers = pipeline.text_encoder.config.get_text_config(), pipeline.text_encoder_select_layers
    if max(layers) > language.num_hidden_layers:
        raise BaseModelError(
            f"text_encoder_select_layers has {max(layers)}; allowed are 0 to {language.num_hidden_layers}, the layers "
            "of text_encoder"
        )
    check_sizes(
        {
            "transformer in_channels": (
                config.in_channels,
                f"squares of {side}² of the vae's latents",
                side**2 * pipeline.vae.config.z_dim,
            ),
            "transformer text_hidden_dim": (config.text_hidden_dim, "text_encoder", language.hidden_size),
            "transformer num_text_layers": (config.num_text_layers, "text_encoder_select_layers", len(layers)),
        }
    )
