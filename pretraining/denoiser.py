"""The denoiser and its text encoder, and the loop that trains them together.

v-prediction, cosine schedule with zero terminal SNR (Lin et al. 2024), Muon, EMA, 10 % empty captions. Half of the
timesteps are drawn evenly, half from a logit-normal around the noisier ones, where things take shape; things weigh more
than the scene around them. The loop yields one record per log interval, writes a checkpoint that it resumes from, and
decays the rate over the last part of the samples asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Protocol

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from orthoplex.models import has_fast_bf16
from pretraining.autoencoder import LATENTS
from pretraining.checkpoint import save
from pretraining.muon import Muon, Shared
from pretraining.tokenizer import MAX_LENGTH

TEXT_WIDTH = 192


@dataclass(frozen=True)
class DenoiserConfig:
    """Knobs of the training; `samples` is the budget the rate schedule is laid over.

    A latent where a thing stands counts 1 + `focus` times as much as one of the scene. `painted_share` is that of
    painted pictures, of which `painted_window` are shown at a time. It computes with weights rounded to
    `rounding_steps` grid steps in a standard deviation, as they will ship. Where a run goes on without its moments, its
    rate rises anew over `restart_samples`, below the schedule.
    """

    samples: int = 1_800_000
    batch_size: int = 128
    learning_rate: float = 6e-4
    adam_learning_rate: float = 3.6e-4
    warmup_samples: int = 20_000
    decay_share: float = 0.8
    ema: float = 0.998
    focus: float = 1.0
    painted_share: float = 0.12
    painted_window: int = 1024
    restart_samples: int = 12_800
    rounding_steps: int = 16
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from.

    Attributes:
        latents: `(n, LATENTS, 16, 16)`, half or float32.
        ids: `(n, 32)`, integers: a caption of every picture.
        inside: `(n, 16, 16)`, bool: where things stand.
    """

    latents: Tensor
    ids: Tensor
    inside: Tensor


class Samples(Protocol):
    """All samples of a run, by their numbers."""

    @property
    def vocabulary(self) -> str:
        """Which tokens the ids mean; a hash."""
        ...

    @property
    def latent_space(self) -> str:
        """Which latents these are; a hash."""
        ...

    def batch(self, start: int, stop: int) -> Batch:
        """The samples numbered `start` to `stop`, the same whenever they are asked for."""
        ...


def scheduler() -> DDIMScheduler:
    """The noise schedule of the base: v-prediction, cosine, zero terminal SNR, trailing steps."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def build_unet(channels: int = LATENTS) -> UNet2DConditionModel:
    """The U-Net, about 14 M parameters, 16 × 16 latents of so many channels."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(96, 128, 224),
        layers_per_block=1,
        attention_head_dim=(3, 4, 7),
        cross_attention_dim=TEXT_WIDTH,
        time_embedding_dim=256,
        norm_num_groups=32,
        use_linear_projection=True,
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """A small CLIP text model over `vocabulary` tokens; the last token is the end-of-text token."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=3,
            max_position_embeddings=MAX_LENGTH,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


class Float32Attention:
    """Attention with float32 products in a bf16 network (bf16 attention's backward is ten times slower on CPUs)."""

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Plain multi-head attention, (n, tokens, width) -> the same."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch, tokens, _ = hidden_states.shape

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2).float()

        q, k, v = heads(attn.to_q(hidden_states)), heads(attn.to_k(context)), heads(attn.to_v(context))
        weights = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
        out = (weights @ v).transpose(1, 2).reshape(batch, tokens, -1)
        return attn.to_out[1](attn.to_out[0](out.to(hidden_states.dtype)))


class Denoiser(nn.Module):
    """U-Net and text encoder as one module; `loss` is the v-prediction error."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.unet = build_unet()
        self.text_encoder = build_text_encoder(vocabulary)
        alphas = scheduler().alphas_cumprod
        self.register_buffer("signal", alphas.sqrt(), persistent=False)
        self.register_buffer("noise", (1 - alphas).sqrt(), persistent=False)

    def loss(
        self, network: nn.Module, latents: Tensor, ids: Tensor, weights: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Weighted squared error of v = α ε − σ z at a random timestep per sample.

        `network` is the U-Net or its compiled form; latents (n, c, h, w), ids (n, tokens), weights (n, h, w) of mean 1.
        """
        device = latents.device
        timesteps = random_timesteps(len(latents), generator).to(device)
        epsilon = torch.randn(latents.shape, generator=generator).to(device)
        signal, noise = self.signal[timesteps, None, None, None], self.noise[timesteps, None, None, None]
        noisy = (signal * latents + noise * epsilon).to(self.unet.dtype, memory_format=torch.channels_last)
        predicted = network(noisy, timesteps, self.text_encoder(ids)[0]).sample
        error = (predicted.float() - (signal * epsilon - noise * latents)).square()
        return (error * weights[:, None]).mean()


def random_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """(count,) of 0 to 999: half of them drawn evenly, half from a logit-normal around 770 (Esser et al. 2024).

    Either half is stratified: every part of its distribution that is as likely as the others gets one.
    """

    def strata(number: int) -> Tensor:
        return (torch.arange(number) + torch.rand(number, generator=generator)) / max(1, number)

    middle = torch.sigmoid(1.2 + torch.special.ndtri(strata(count // 2)))
    return (torch.cat([strata(count - count // 2), middle]) * 1000).long().clamp(0, 999)


def focus_weights(inside: Tensor, focus: float) -> Tensor:
    """(n, h, w) bool -> weights of mean 1 per picture, 1 + focus times as large inside."""
    weights = 1 + focus * inside.float()
    return weights / weights.mean((1, 2), keepdim=True)


def schedule(config: DenoiserConfig, seen: int, restarted: int = 0) -> float:
    """Share of the full rate: warm-up, constant, then a cosine decay to 2 % over the last `decay_share` of samples.

    After a restart without moments, at `restarted` samples, a second warm-up rises to this schedule.
    """
    if seen < config.warmup_samples:
        share = (seen + 1) / config.warmup_samples
    else:
        tail = max(0.0, (seen / config.samples - (1 - config.decay_share)) / config.decay_share)
        share = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(1.0, tail)))
    return share * min(1.0, (seen - restarted + 1) / config.restart_samples) if restarted else share


@dataclass(frozen=True)
class Progress:
    """One log line."""

    samples: int
    loss: float
    learning_rate: float
    samples_per_second: float


def working_type(device: str) -> torch.dtype:
    """What the networks compute in: bf16, or float32 where that is faster."""
    return torch.bfloat16 if has_fast_bf16(torch.device(device)) else torch.float32


@dataclass(frozen=True)
class Rhythm:
    """Steps between log lines, and between checkpoints."""

    log: int = 25
    save: int = 50


def check_config(before: dict, config: DenoiserConfig, file: Path, *, other_total: bool = False) -> None:
    """Refuse to go on from a file with other settings than it began with; another total only with `other_total`.

    Raises:
        ValueError: For the first setting that differs.
    """
    for name, value in asdict(config).items():
        if before.get(name) != value and not (name == "samples" and other_total):
            hint = "; --other-total changes it" if name == "samples" else ""
            raise ValueError(f"{name} is {value}; allowed is {before.get(name)}, with which {file} began{hint}")


def _resume(
    shared: Shared, checkpoint: Path, config: DenoiserConfig, data: Samples, device: str, rank: int, other_total: bool
) -> tuple[int, int]:
    """Put a checkpoint's weights into `shared` (the first process does).

    Returns the samples it has seen, and had seen when it last began without moments; zeros without a checkpoint.
    """
    if not checkpoint.exists():
        return 0, 0
    state = torch.load(checkpoint, map_location=device, weights_only=True)
    for name, wanted in (("vocabulary", data.vocabulary), ("latent_space", data.latent_space)):
        if "config" not in state or state.pop(name, None) != wanted:
            raise ValueError(f"{checkpoint} was written for another {name}, or by another version; move it away")
    check_config(state.pop("config"), config, checkpoint, other_total=other_total)
    seen, restarted = state.pop("samples"), state.pop("restarted")
    if rank == 0:
        shared.load_state_dict(state)
    return seen, restarted


def train(
    config: DenoiserConfig,
    data: Samples,
    model: Denoiser,
    checkpoint: Path,
    device: str,
    *,
    shared: Shared | None = None,
    rank: int = 0,
    barrier: Barrier | None = None,
    compiled: bool = True,
    rhythm: Rhythm | None = None,
    other_total: bool = False,
) -> Iterator[Progress]:
    """Train `model`, or go on from `checkpoint` where there is one.

    Yields records and rewrites the checkpoint atomically, as often as `rhythm` says, and at the end. Several processes
    run this together with the same `shared` and `barrier`, each on its share of every batch.
    """
    rhythm = rhythm or Rhythm()
    if shared is None:
        shared = Shared(model, device=device, dtype=working_type(device), rounding_steps=config.rounding_steps)
    processes = len(shared.gradients)
    signal, noise = model.signal.to(device), model.noise.to(device)
    model.to(device, shared.working.dtype)
    model.signal, model.noise = signal, noise  # the schedule stays float32
    model.unet.set_attn_processor(Float32Attention())
    model.text_encoder.set_attn_implementation("eager")
    optimizer = Muon(model, shared, rank, barrier)
    network = torch.compile(model.unet) if compiled else model.unet  # shares the parameters; about 1.4 × on a CPU
    seen, restarted = _resume(shared, checkpoint, config, data, device, rank, other_total)
    optimizer.wait()
    losses, clock, local = [], time.perf_counter(), config.batch_size // processes
    while seen < config.samples:
        generator = torch.Generator().manual_seed((config.seed * 1009 + rank) * 100_000_007 + seen)
        batch = data.batch(seen + rank * local, seen + (rank + 1) * local)
        latents, ids = batch.latents.float().to(device), batch.ids.long().to(device)
        weights = focus_weights(batch.inside, config.focus).to(device)
        loss = model.loss(network, latents, ids, weights, generator)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):  # before the weights of any process move
            raise FloatingPointError(f"the loss is {losses[-1]} after {seen} samples; the last checkpoint is untouched")
        loss.backward()
        step, share = seen // config.batch_size + 1, schedule(config, seen, restarted)
        rates = (config.learning_rate * share, config.adam_learning_rate * share)
        young = step - restarted // config.batch_size  # steps of the moments
        optimizer.step(*rates, young, ema_decay=min(config.ema, step / (step + 9)))
        seen += config.batch_size
        if step % rhythm.log == 0:
            now = time.perf_counter()
            speed = len(losses) * config.batch_size / (now - clock)
            yield Progress(seen, sum(losses) / len(losses), config.learning_rate * share, speed)
            losses, clock = [], now
        saves = step % rhythm.save == 0 or seen >= config.samples
        if saves and rank == 0:
            meant = {"vocabulary": data.vocabulary, "latent_space": data.latent_space}
            told = {"samples": seen, "restarted": restarted, "config": asdict(config)}
            save(checkpoint, {**shared.state_dict(), **meant, **told})
        if saves:
            optimizer.wait()  # nobody changes what is being written
