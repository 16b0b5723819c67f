"""The denoiser and its text encoder, and the loop that trains them together.

v-prediction, cosine schedule with zero terminal SNR (Lin et al. 2024), Muon, EMA, 10 % empty captions.
The loop yields one record per log interval, writes a checkpoint that it resumes from, and decays the rate over the
last part of the samples asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from pretraining.autoencoder import LATENTS
from pretraining.checkpoint import save
from pretraining.muon import Muon, Shared
from pretraining.tokenizer import MAX_LENGTH

TEXT_WIDTH = 192


@dataclass(frozen=True)
class DenoiserConfig:
    """Knobs of the training; `samples` is the budget the rate schedule is laid over."""

    samples: int = 400_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    adam_learning_rate: float = 6e-4
    warmup_samples: int = 4_000
    decay_share: float = 0.45
    ema: float = 0.998
    seed: int = 0


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


def build_unet() -> UNet2DConditionModel:
    """The U-Net, about 14 M parameters, 16 × 16 latents."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENTS,
        out_channels=LATENTS,
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

    def loss(self, network: nn.Module, latents: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of v = α ε − σ z at a random timestep per sample; latents (n, c, h, w), ids (n, tokens).

        `network` is the U-Net or its compiled form.
        """
        device = latents.device
        timesteps = torch.randint(0, 1000, (len(latents),), generator=generator).to(device)
        epsilon = torch.randn(latents.shape, generator=generator).to(device)
        signal, noise = self.signal[timesteps, None, None, None], self.noise[timesteps, None, None, None]
        noisy = (signal * latents + noise * epsilon).to(self.unet.dtype, memory_format=torch.channels_last)
        predicted = network(noisy, timesteps, self.text_encoder(ids)[0]).sample
        return nn.functional.mse_loss(predicted.float(), signal * epsilon - noise * latents)


def schedule(config: DenoiserConfig, seen: int) -> float:
    """Share of the full rate: warm-up, constant, then a cosine decay to 2 % over the last `decay_share` of samples."""
    if seen < config.warmup_samples:
        return (seen + 1) / config.warmup_samples
    done = seen / config.samples
    tail = max(0.0, (done - (1 - config.decay_share)) / config.decay_share)
    return 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(1.0, tail)))


@dataclass(frozen=True)
class Progress:
    """One log line."""

    samples: int
    loss: float
    learning_rate: float
    samples_per_second: float


def train(
    config: DenoiserConfig,
    latents: Tensor,
    ids: Tensor,
    checkpoint: Path,
    device: str,
    *,
    shared: Shared | None = None,
    rank: int = 0,
    barrier: Barrier | None = None,
    compiled: bool = True,
    log_every: int = 50,
) -> Iterator[Progress]:
    """Train from scratch or from `checkpoint`; latents (n, c, 16, 16), ids (n, captions, 32), both on any device.

    Yields a record every `log_every` steps; the checkpoint is rewritten atomically every 500 steps and at the end.
    Several processes run this together with the same `shared` and `barrier`, each on its share of every batch.
    """
    torch.manual_seed(config.seed)
    model = Denoiser(int(ids.max()) + 1)
    if shared is None:
        shared = Shared(model, device=device)
    processes = len(shared.gradients)
    signal, noise = model.signal.to(device), model.noise.to(device)
    model.to(device, torch.bfloat16)
    model.signal, model.noise = signal, noise  # the schedule stays float32
    model.unet.set_attn_processor(Float32Attention())
    model.text_encoder.set_attn_implementation("eager")
    optimizer = Muon(model, shared, rank, barrier)
    network = torch.compile(model.unet) if compiled else model.unet  # shares the parameters; about 1.4 × on a CPU
    seen = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if "weights" not in state:
            raise ValueError(f"{checkpoint} was written by another version; move it away to begin anew")
        seen = state.pop("samples")
        if rank == 0:
            shared.load_state_dict(state)
        del state
        optimizer.wait()
    losses, clock, local = [], time.perf_counter(), config.batch_size // processes
    while seen < config.samples:
        generator = torch.Generator().manual_seed((config.seed * 1009 + rank) * 100_000_007 + seen)
        rows = torch.randint(len(latents), (local,), generator=generator)
        variant = torch.randint(ids.shape[1], (local,), generator=generator)
        loss = model.loss(network, latents[rows].float().to(device), ids[rows, variant].to(device), generator)
        loss.backward()
        step, share = seen // config.batch_size + 1, schedule(config, seen)
        rates = (config.learning_rate * share, config.adam_learning_rate * share)
        optimizer.step(*rates, step, ema_decay=min(config.ema, step / (step + 9)))
        seen += config.batch_size
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss is {losses[-1]} after {seen} samples; the last checkpoint is untouched")
        if step % log_every == 0:
            now = time.perf_counter()
            speed = len(losses) * config.batch_size / (now - clock)
            yield Progress(seen, sum(losses) / len(losses), config.learning_rate * schedule(config, seen), speed)
            losses, clock = [], now
        if rank == 0 and (step % 500 == 0 or seen >= config.samples):
            save(checkpoint, {**shared.state_dict(), "samples": seen})
        if step % 500 == 0 or seen >= config.samples:
            optimizer.wait()  # nobody changes what is being written
