"""Qwen-Image: a transformer of joint attention with a stream of text and one of pictures; a language model reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from orthoplex.errors import BaseModelError
from orthoplex.models.families.autoencoders import FrameAutoencoder
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.flow import Combination, Guidance, JointFamily
from orthoplex.models.families.flow_check import check_frames, check_sizes
from orthoplex.models.families.layouts.qwen_image import LAYOUT
from orthoplex.models.families.packing import packed, unpacked
from orthoplex.models.families.parts import load_parts, without_bars
from orthoplex.models.families.qwen_template import NUM_BEFORE, check_template_reader, template_reader
from orthoplex.models.flow_schedule import check_flow_scheduler
from orthoplex.models.problems import all_done
from orthoplex.models.quiet import quiet
from orthoplex.models.weight_files import WeightFiles
from orthoplex.models.words.prompt_forms import text_mask
from orthoplex.models.words.words import Reader

with quiet():
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import QwenImagePipeline
    from transformers import Qwen2_5_VLForConditionalGeneration

_NETWORKS = {
    "vae": (AutoencoderKLQwenImage,),
    "text_encoder": (Qwen2_5_VLForConditionalGeneration,),
    "transformer": (QwenImageTransformer2DModel,),
}
_MAX_LENGTH = 1024
"""The positions behind the template's beginning in diffusers' pipeline."""
_UNSUPPORTED = ("guidance_embeds", "use_additional_t_cond", "use_layer3d_rope")
"""Settings of transformers that diffusers' pipeline of text cannot call, or which draw several layers."""


def _of_equal_length(with_text: Tensor, without: Tensor, guidance_scale: float) -> Tensor:
    """Return ``without + s (with_text − without)``, each token as long as that of ``with_text``."""
    height, width = with_text.shape[2:]
    own, other = packed(with_text), packed(without)
    combined = other + guidance_scale * (own - other)
    lengths = torch.norm(own, dim=-1, keepdim=True) / torch.norm(combined, dim=-1, keepdim=True)
    return unpacked(combined * lengths, height, width)


@final
class QwenImage(JointFamily):
    """Qwen-Image, as a model of text alone.

    A ``guidance_scale`` is diffusers' ``true_cfg_scale``; above 1, there is always a negative prompt, empty or not.
    """

    changed = ("transformer",)
    weighed = tuple(_NETWORKS)
    text_encoders = ()
    feature_encoder = "text_encoder"
    tokenizers = ("tokenizer",)
    layout = LAYOUT
    combination = Combination(1.0, _of_equal_length)
    selections = {
        "attention": ("*transformer_blocks.*.attn.*",),
        "linear": ("*transformer_blocks.*.attn.*", "*transformer_blocks.*_mlp.*"),
    }

    @classmethod
    def load(
        cls, folder: Path, index: Mapping[str, Any], files: Mapping[str, WeightFiles | None], dtype: torch.dtype
    ) -> QwenImagePipeline:
        """Load a pipeline; see ``Family.load``."""
        parts = load_parts(cls.parts(), folder, index, files, dtype, _NETWORKS)
        return without_bars(QwenImagePipeline(**parts), folder)

    @classmethod
    def version(cls, pipeline: QwenImagePipeline) -> str:
        """Return the one version."""
        return "qwen-image"

    @classmethod
    def check(cls, pipeline: QwenImagePipeline) -> None:
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

    @property
    def unread(self) -> Sequence[str]:
        """What gives the text behind the last block, which only the picture leaves."""
        last = f"transformer.transformer_blocks.{len(self.pipeline.transformer.transformer_blocks) - 1}"
        return f"{last}.attn.add_q_proj", f"{last}.attn.to_add_out", f"{last}.txt_mlp.*"

    def encode(self, ids: Tensor) -> Conditioning:
        """Return the language model's last states behind the template's beginning, and the mask of the text.

        Features ``(n, length, width)`` are zero behind the longest prompt, where the language model is not run.
        """
        network = self.pipeline.text_encoder
        ids = ids.to(network.device)
        words = text_mask(self.pipeline.tokenizer, ids)
        longest = int(words.any(0).nonzero().amax()) + 1
        output = network(
            input_ids=ids[:, :longest],
            attention_mask=words[:, :longest].long(),
            output_hidden_states=True,
            logits_to_keep=1,
        )
        missing = ids.shape[1] - longest
        states = nn.functional.pad(output.hidden_states[-1], (0, 0, 0, missing))[:, NUM_BEFORE:]
        words = words[:, NUM_BEFORE:]
        return Conditioning(states * words.unsqueeze(2), mask=words)

    @property
    def text_width(self) -> int:
        """The width of the language model's states."""
        return self.pipeline.transformer.config.joint_attention_dim

    @property
    def passes_features(self) -> bool:
        """False: the transformer normalizes them first, and positions behind the text are left out."""
        return False

    @property
    def latent_multiple(self) -> int:
        """Two: squares of four positions are one token."""
        return 2

    @property
    def latent_dtype(self) -> torch.dtype:
        """That of the language model."""
        return self.pipeline.text_encoder.dtype

    @property
    def guidance(self) -> Guidance:
        """A second prediction."""
        return "second prediction"

    def shift(self, height: int, width: int, num_inference_steps: int) -> float:
        """Linear in the number of tokens."""
        return self.size_shift(height, width)

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity."""
        transformer = self.pipeline.transformer
        device, dtype = transformer.device, transformer.dtype
        height, width = noisy.shape[2:]
        given = conditioning.to(dtype, device).trimmed()
        mask = given.mask
        prediction = transformer(
            hidden_states=packed(noisy.to(device, dtype)),
            timestep=times.to(device).expand(len(noisy)).to(dtype) / 1000,
            encoder_hidden_states=given.features,
            encoder_hidden_states_mask=None if mask is None or mask.all() else mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(noisy),
            return_dict=False,
        )[0]
        return unpacked(prediction, height, width)


def _reader(pipeline: QwenImagePipeline) -> Reader:
    return template_reader(pipeline, _MAX_LENGTH)


def _check_transformer(pipeline: QwenImagePipeline) -> None:
    config, channels = pipeline.transformer.config, pipeline.vae.config.z_dim
    for setting in _UNSUPPORTED:
        if config[setting]:
            raise BaseModelError(f"transformer {setting} is {config[setting]!r}; allowed is False")
    width = pipeline.text_encoder.config.get_text_config().hidden_size
    check_sizes(
        {
            "transformer patch_size": (config.patch_size, "the squares of the pipeline", 2),
            "transformer in_channels": (config.in_channels, "squares of the vae's latents", 4 * channels),
            "transformer out_channels": (config.out_channels or config.in_channels, "the vae's latents", channels),
            "transformer joint_attention_dim": (config.joint_attention_dim, "text_encoder", width),
        }
    )
