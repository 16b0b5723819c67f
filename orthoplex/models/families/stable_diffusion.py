"""Stable Diffusion 1 and 2: a U-Net with cross-attention on the features of one CLIP text encoder."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from orthoplex import vignette
from orthoplex.concepts.layer_table import Sees
from orthoplex.errors import BaseModelError
from orthoplex.models.families.conditioning import Conditioning
from orthoplex.models.families.family import Family
from orthoplex.models.families.pictures import PictureRequest, Pictures, PictureStep
from orthoplex.models.families.words import Reader, Words
from orthoplex.models.folder_content import read_json
from orthoplex.models.identity import weights_hash
from orthoplex.models.layers import select_linear_layers
from orthoplex.models.pipelines import NETWORKS, StableDiffusionPipeline, load_network
from orthoplex.models.quiet import quiet
from orthoplex.models.schedules import DiscreteSchedule
from orthoplex.models.versions import EMBEDDED, version_of
from orthoplex.models.weight_files import WeightFiles

_UNET = {"sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280)}
_SD1 = {
    "unet": {**_UNET, "cross_attention_dim": 768, "attention_head_dim": 8},
    "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
}
"""Of runwayml/stable-diffusion-v1-5; what is not named is the classes' default."""
_SD2 = {
    "unet": {
        **_UNET,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "text_encoder": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23},
}
"""Of stabilityai/stable-diffusion-2-1."""


@final
class StableDiffusion(Family):
    """Stable Diffusion 1 and 2, and every base of their classes, whatever its size."""

    changed = ("unet", "text_encoder")
    weighed = tuple(NETWORKS)
    text_encoders = ("text_encoder",)
    rules: ClassVar[Mapping[str, Sees]] = {
        "text_encoder.*": "text",
        "unet.*attn2.to_k": "text",
        "unet.*attn2.to_v": "text",
        "unet.time_embedding.*": "time",
        "unet.*.time_emb_proj": "time",
        "unet.*": "picture",
    }

    @classmethod
    def load(
        cls,
        folder: Path,
        index: Mapping[str, Any],
        files: Mapping[str, WeightFiles | None],
        dtype: torch.dtype,
    ) -> StableDiffusionPipeline:
        """Load a pipeline without its safety checker; see ``Family.load``."""
        networks = {
            component: load_network(component, folder / component, files[component], dtype)
            for component, kind in NETWORKS.items()
            if index.get(component) == [kind.__module__.partition(".")[0], kind.__name__]
        }
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=dtype,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
            local_files_only=True,
            **networks,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @classmethod
    def version(cls, pipeline: StableDiffusionPipeline) -> str:
        """Return ``sd1``, ``sd2`` or ``sd2-v``."""
        return version_of(pipeline.unet.config.cross_attention_dim, pipeline.scheduler.config.prediction_type)

    @classmethod
    def check(cls, pipeline: StableDiffusionPipeline) -> None:
        """Refuse a tokenizer that gives more tokens than are read; one from a missing folder knows no limit at all."""
        given, read = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.max_position_embeddings
        if given > read:
            raise BaseModelError(
                f"tokenizer gives up to {given} tokens, allowed are the {read} that the encoder reads; is the folder "
                "'tokenizer' whole?"
            )

    @classmethod
    def published(cls) -> Mapping[str, Mapping[str, nn.Module] | str]:
        """Return versions 1 and 2, and the embedded base."""
        configs = {"sd1": _SD1, "sd2": _SD2, EMBEDDED: _stored_configs(vignette.folder())}
        return {**{version: _shells(config) for version, config in configs.items()}, "sd2-v": "sd2"}

    @property
    def denoiser(self) -> nn.Module:
        """The U-Net."""
        return self.pipeline.unet

    def select(self, selection: str, *, text_encoder: bool) -> dict[str, nn.Linear]:
        """Return the linear layers of the U-Net's transformer blocks, and of the text encoder's."""
        return select_linear_layers(self.components(), selection, text_encoder=text_encoder)

    @property
    def words(self) -> Words:
        """How CLIP reads."""
        tokenizer, network = self.pipeline.tokenizer, self.pipeline.text_encoder
        return Words([Reader("text_encoder", tokenizer, network, self._spell_out)], seen="text_encoder")

    def _spell_out(self, prompt: str) -> str:
        with quiet():  # a prompt may be longer than is read; whoever asks says so
            return self.pipeline.maybe_convert_prompt(prompt, self.pipeline.tokenizer)

    def condition(self, prompts: Sequence[str] | Tensor) -> Conditioning:
        """Return the text encoder's last states, ``(n, length, dim)``."""
        ids = prompts if isinstance(prompts, Tensor) else self.words.ids(prompts)
        network = self.pipeline.text_encoder
        return Conditioning(network(ids.to(network.device))[0])

    @property
    def text_width(self) -> int:
        """The width that keys and values of cross-attention read."""
        return self.pipeline.unet.config.cross_attention_dim

    @property
    def passes_features(self) -> bool:
        """Whether the U-Net neither projects nor normalizes them first."""
        config = self.pipeline.unet.config
        names = ("encoder_hid_dim", "encoder_hid_dim_type", "cross_attention_norm")
        return not any(config.get(name) for name in names)

    @property
    def resolution(self) -> int:
        """Width and height of its pictures, in pixels."""
        return int(self.pipeline.unet.config.sample_size * self.pixels_per_latent)

    @property
    def pixels_per_latent(self) -> int:
        """Width and height, in pixels, of one position of the latents."""
        return self.pipeline.vae_scale_factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(c, h, w)``."""
        config = self.pipeline.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @torch.no_grad()
    def latents(self, pixels: Tensor) -> Tensor:
        """Return the mean of the autoencoder's posterior, shifted and scaled, float32."""
        autoencoder = self.pipeline.vae
        means = autoencoder.encode(pixels.to(autoencoder.device, autoencoder.dtype)).latent_dist.mean.float()
        return (means - self._shift) * autoencoder.config.scaling_factor

    def pixels(self, latents: Tensor) -> Tensor:
        """Return what the autoencoder decodes."""
        autoencoder = self.pipeline.vae
        return autoencoder.decode(latents / autoencoder.config.scaling_factor + self._shift).sample

    @property
    def _shift(self) -> float:
        return self.pipeline.vae.config.get("shift_factor") or 0.0

    @property
    def schedule(self) -> DiscreteSchedule:
        """The scheduler's ᾱ and what the U-Net predicts."""
        return DiscreteSchedule.of(self.pipeline.scheduler)

    @property
    def max_inference_steps(self) -> int:
        """The timesteps of the scheduler."""
        return self.pipeline.scheduler.config.num_train_timesteps

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return what the U-Net predicts: ε, v or x_0, as ``schedule`` says."""
        unet = self.pipeline.unet
        given = conditioning.to(unet.dtype, unet.device)
        return unet(
            noisy.to(unet.device, unet.dtype),
            times.to(unet.device),
            given.features,
            timestep_cond=given.extras.get("guidance"),
        ).sample

    @torch.no_grad()
    def picture(self, request: PictureRequest) -> Iterator[PictureStep | Pictures]:
        """Denoise as diffusers' own pipeline does, step by step; see ``Family.picture``."""
        call: Any = copy.copy(self.pipeline)  # schedulers remember timesteps and earlier predictions
        scheduler = call.scheduler = type(call.scheduler).from_config(call.scheduler.config)
        device = call._execution_device  # where the pipeline's own call would work; offloading moves it
        guided = request.guidance_scale > 1 and call.unet.config.time_cond_proj_dim is None
        conditioning = self._request_conditioning(call, request, guided=guided)
        scheduler.set_timesteps(request.num_inference_steps, device=device)
        generators = request.generators
        generators = generators if isinstance(generators, torch.Generator) else list(generators)
        channels, height, width = (size * scale for size, scale in zip(self.latent_shape, self._scales, strict=True))
        dtype = call.text_encoder.dtype
        latents = call.prepare_latents(len(request), channels, height, width, dtype, device, generators)
        options = call.prepare_extra_step_kwargs(generators, 0.0)
        for number, time in enumerate(scheduler.timesteps, start=1):
            given = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, time)
            prediction = self.predict(given, time, conditioning)
            if guided:
                without, with_text = prediction.chunk(2)
                prediction = without + request.guidance_scale * (with_text - without)
            latents = scheduler.step(prediction, time, latents, **options, return_dict=False)[0]
            yield PictureStep(number)
        pixels = None
        if request.decoded:
            pixels = call.image_processor.postprocess(self.pixels(latents), output_type="np")
        call.maybe_free_model_hooks()
        yield Pictures(latents, pixels)

    @property
    def _scales(self) -> tuple[int, int, int]:
        return 1, self.pixels_per_latent, self.pixels_per_latent

    def _request_conditioning(self, call: Any, request: PictureRequest, *, guided: bool) -> Conditioning:  # noqa: ANN401
        """The prompts of all pictures, after the negative ones where pictures are guided."""
        each = torch.arange(len(request.prompts)).repeat_interleave(request.pictures_per_prompt)
        prompts = self.condition(request.prompts).to(call.text_encoder.dtype).take(each)
        if guided:
            negative = self.condition([request.negative_prompt] * len(request.prompts))
            return Conditioning.cat([negative.to(call.text_encoder.dtype).take(each), prompts])
        width = call.unet.config.time_cond_proj_dim
        if width is None:
            return prompts
        scales = torch.tensor(request.guidance_scale - 1).repeat(len(request))
        return Conditioning(prompts.features, {"guidance": call.get_guidance_scale_embedding(scales, width)})

    def convolutional(self) -> tuple[nn.Module, ...]:
        """The U-Net and the autoencoder; only costs are measured on bases without the latter."""
        networks = (self.pipeline.unet, self.pipeline.vae)
        return tuple(network for network in networks if network is not None)

    def inputs_hash(self) -> str:
        """Hash the autoencoder's encoder, the words, and the schedule; the decoder decides finished pictures only."""
        pipeline, autoencoder = self.pipeline, self.pipeline.vae
        encoding = {"encoder": autoencoder.encoder, "quant_conv": autoencoder.quant_conv}
        embedding = pipeline.text_encoder.get_input_embeddings().weight.detach()
        values = {
            "encoder": weights_hash({name: module for name, module in encoding.items() if module is not None}),
            "tokens": hashlib.sha256(embedding.float().cpu().numpy().tobytes()).hexdigest(),
            "vocabulary": pipeline.tokenizer.get_vocab(),
            "scheduler": {key: value for key, value in pipeline.scheduler.config.items() if not key.startswith("_")},
            "schedule": type(pipeline.scheduler).__name__,
            "scaling": [autoencoder.config.scaling_factor, autoencoder.config.get("shift_factor")],
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:24]

    def outputs_hash(self) -> str:
        """Hash the autoencoder."""
        return weights_hash({"vae": self.pipeline.vae})


def _shells(config: Mapping[str, Mapping[str, Any]]) -> dict[str, nn.Module]:
    """The networks that concepts change, without numbers."""
    with torch.device("meta"):
        text_encoder = CLIPTextModel(CLIPTextConfig(**config["text_encoder"]))
        return {"unet": NETWORKS["unet"].from_config(dict(config["unet"])), "text_encoder": text_encoder}


def _stored_configs(folder: Path) -> dict[str, dict[str, Any]]:
    return {component: read_json(folder / component / "config.json") for component in StableDiffusion.changed}
