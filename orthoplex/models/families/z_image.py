"""Z-Image: a transformer of one stream; a language model gives the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from orthoplex.errors import BaseModelError
from orthoplex.models.families.autoencoders import KLAutoencoder
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.flow import BEYOND, Guidance, JointFamily
from orthoplex.models.families.flow_check import check_chat, check_side, check_sizes
from orthoplex.models.families.latent_check import check_autoencoder
from orthoplex.models.families.layouts.z_image import LAYOUT
from orthoplex.models.families.parts import load_parts, without_bars
from orthoplex.models.flow_schedule import NUM_TIMES, check_flow_scheduler
from orthoplex.models.problems import all_done
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.prompt_forms import Templated, text_mask
from orthoplex.models.words.words import Reader

with quiet():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline
    from transformers import Qwen3ForCausalLM, Qwen3Model

_NETWORKS = {
    "vae": (AutoencoderKL,),
    "text_encoder": (Qwen3Model, Qwen3ForCausalLM),
    "transformer": (ZImageTransformer2DModel,),
}
_MAX_LENGTH = 512
"""The positions of the language model in diffusers' pipeline."""
_PATCH = 2
"""The side of the squares of positions that are one token; the transformer's own default."""


def _float32_sigmas(num_inference_steps: int) -> list[float]:
    """Shares of noise evenly spaced, in float32."""
    return torch.linspace(1.0, 1 / num_inference_steps, num_inference_steps).tolist()


@final
class ZImage(JointFamily):
    """Z-Image, Turbo and Base."""

    changed = ("transformer",)
    weighed = tuple(_NETWORKS)
    text_encoders = ()
    feature_encoder = "text_encoder"
    tokenizers = ("tokenizer",)
    layout = LAYOUT
    combination = BEYOND
    sigmas = staticmethod(_float32_sigmas)
    selections = {
        "attention": ("transformer.*.attention.to_*",),
        "linear": ("transformer.*.attention.to_*", "transformer.*.feed_forward.*"),
    }

    @classmethod
    def load(
        cls, folder: Path, index: Mapping[str, Any], files: Mapping[str, WeightFiles | None], dtype: torch.dtype
    ) -> ZImagePipeline:
        """Load a pipeline; see ``Family.load``."""
        parts = load_parts(cls.parts(), folder, index, files, dtype, _NETWORKS)
        return without_bars(ZImagePipeline(**parts), folder)

    @classmethod
    def version(cls, pipeline: ZImagePipeline) -> str:
        """Return the one version."""
        return "z-image"

    @classmethod
    def check(cls, pipeline: ZImagePipeline) -> None:
        """Refuse parts that do not belong together."""
        transformer, autoencoder = pipeline.transformer.config, pipeline.vae.config
        width = pipeline.text_encoder.config.hidden_size
        sizes = {
            "transformer in_channels": (transformer.in_channels, "the vae's latents", autoencoder.latent_channels),
            "transformer cap_feat_dim": (transformer.cap_feat_dim, "text_encoder", width),
        }
        checks: dict[str, Callable[[], None]] = {
            "vae": partial(check_autoencoder, autoencoder),
            "size": partial(check_side, autoencoder, 2 ** len(autoencoder.block_out_channels)),
            "transformer": partial(check_sizes, sizes),
            "patches": partial(_check_patches, transformer),
            "text_encoder": partial(check_chat, "tokenizer", partial(_reader, pipeline)),
            "scheduler": partial(check_flow_scheduler, pipeline.scheduler),
        }
        all_done(checks)

    @property
    def autoencoder(self) -> KLAutoencoder:
        """The autoencoder."""
        return KLAutoencoder(self.pipeline.vae)

    @property
    def readers(self) -> Sequence[Reader]:
        """The language model with its tokenizer."""
        return (_reader(self.pipeline),)

    def encode(self, ids: Tensor) -> Conditioning:
        """Return the language model's last states but one ``(n, length, width)``, and the mask of the text."""
        network = self.pipeline.text_encoder
        ids = ids.to(network.device)
        words = text_mask(self.pipeline.tokenizer, ids)
        output = network.base_model(input_ids=ids, attention_mask=words, output_hidden_states=True)
        return Conditioning(output.hidden_states[-2], mask=words)

    @property
    def text_width(self) -> int:
        """The width of the language model's states."""
        return self.pipeline.transformer.config.cap_feat_dim

    @property
    def passes_features(self) -> bool:
        """False: positions without text are left out first."""
        return False

    @property
    def latent_multiple(self) -> int:
        """Two: squares of four positions are one token."""
        return _PATCH

    @property
    def latent_dtype(self) -> torch.dtype:
        """float32, whatever the networks compute in."""
        return torch.float32

    @property
    def guidance(self) -> Guidance:
        """A second prediction; Turbo's pages ask for none."""
        return "second prediction"

    def shift(self, height: int, width: int, num_inference_steps: int) -> float:
        """Linear in the number of tokens; only schedulers with dynamic shifting read it."""
        return self.size_shift(height, width)

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity: the transformer counts times from noise to picture, and gives the negative velocity."""
        transformer = self.pipeline.transformer
        device, dtype = transformer.device, transformer.dtype
        given = conditioning.to(dtype, device)
        mask = given.mask if given.mask is not None else given.features.new_ones(given.features.shape[:2]).bool()
        predictions = transformer(
            list(noisy.to(device, dtype).unsqueeze(2)),
            (NUM_TIMES - times.to(device).expand(len(noisy))) / NUM_TIMES,
            [features[words] for features, words in zip(given.features, mask, strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack([prediction.float() for prediction in predictions]).squeeze(2)


def _check_patches(config: Mapping[str, Any]) -> None:
    patches = list(zip(config["all_patch_size"], config["all_f_patch_size"], strict=True))
    if (_PATCH, 1) not in patches:
        raise BaseModelError(
            f"transformer all_patch_size is {list(config['all_patch_size'])} with all_f_patch_size "
            f"{list(config['all_f_patch_size'])}; allowed are those with {_PATCH}, and 1 at its place"
        )


def _reader(pipeline: ZImagePipeline) -> Reader:
    longest = min(_MAX_LENGTH, pipeline.tokenizer.model_max_length)
    return Reader(pipeline, form=Templated.of_chat(pipeline.tokenizer, longest, enable_thinking=True))
