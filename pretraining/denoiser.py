"""The denoiser and its text encoder, and the loop that trains them together.

v-prediction, cosine schedule with zero terminal SNR (Lin et al. 2024), AdamW, EMA, 10 % empty captions.
The loop yields one record per log interval, writes a checkpoint that it resumes from, and decays the rate over the
last third of the samples asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from pretraining.autoencoder import LATENTS
from pretraining.checkpoint import begin_average, load_checkpoint, save_checkpoint, update_average
from pretraining.tokenizer import MAX_LENGTH

TEXT_WIDTH = 192


@dataclass(frozen=True)
class DenoiserConfig:
    """Knobs of the training; `samples` is the budget the rate schedule is laid over."""

    samples: int = 400_000
    batch_size: int = 32
    learning_rate: float = 6e-4
    warmup_samples: int = 10_000
    decay_share: float = 0.33
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
        block_out_channels=(64, 128, 224),
        layers_per_block=1,
        attention_head_dim=(2, 4, 7),
        cross_attention_dim=TEXT_WIDTH,
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
    """Attention with float32 products under bf16 autocast (bf16 attention's backward is ten times slower on CPUs)."""

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
        with torch.autocast(hidden_states.device.type, enabled=False):
            weights = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
            out = (weights @ v).transpose(1, 2).reshape(batch, tokens, -1)
        return attn.to_out[1](attn.to_out[0](out))


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
        with torch.autocast(device.type, torch.bfloat16):
            text = self.text_encoder(ids)[0]
            predicted = network(signal * latents + noise * epsilon, timesteps, text).sample
        return nn.functional.mse_loss(predicted.float(), signal * epsilon - noise * latents)


def rate(config: DenoiserConfig, seen: int) -> float:
    """Warm-up, constant, then a cosine decay to 2 % over the last `decay_share` of the samples."""
    if seen < config.warmup_samples:
        return config.learning_rate * (seen + 1) / config.warmup_samples
    done = seen / config.samples
    tail = max(0.0, (done - (1 - config.decay_share)) / config.decay_share)
    return config.learning_rate * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * min(1.0, tail))))


class GradientAverage:
    """Averages gradients over processes through shared memory: on a CPU two processes beat one with two threads.

    Args:
        rank: Which process this is.
        buffer: (processes, parameters) float32 in shared memory.
        barrier: Passed by all processes together.
    """

    def __init__(self, rank: int, buffer: Tensor, barrier: Barrier) -> None:
        self.rank, self.buffer, self.barrier = rank, buffer, barrier

    @property
    def processes(self) -> int:
        """How many processes share a step."""
        return len(self.buffer)

    @torch.no_grad()
    def __call__(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes (a parameter without one counts as 0)."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        torch.cat([gradient.flatten() for gradient in gradients], out=self.buffer[self.rank])
        self.barrier.wait()
        mean, start = self.buffer.mean(0), 0
        self.barrier.wait()
        for parameter in parameters:
            parameter.grad = mean[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()


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
    average_gradients: GradientAverage | None = None,
    compiled: bool = True,
    log_every: int = 50,
) -> Iterator[Progress]:
    """Train from scratch or from `checkpoint`; latents (n, c, 16, 16), ids (n, captions, 32), both on any device.

    Yields a record every `log_every` steps; the checkpoint is rewritten atomically every 500 steps and at the end.
    With `average_gradients`, several processes run this together, each on its share of every batch.
    """
    rank, processes = (average_gradients.rank, average_gradients.processes) if average_gradients else (0, 1)
    torch.manual_seed(config.seed)
    model = Denoiser(int(ids.max()) + 1).to(device)
    model.unet.set_attn_processor(Float32Attention())
    model.text_encoder.set_attn_implementation("eager")
    network = torch.compile(model.unet) if compiled else model.unet  # shares the parameters; about 1.4 × on a CPU
    parameters = list(model.parameters())
    average = begin_average(model)
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    seen = 0
    if checkpoint.exists():
        average, progress = load_checkpoint(checkpoint, model, optimizer, device)
        seen = progress["samples"]
    losses, clock, local = [], time.perf_counter(), config.batch_size // processes
    while seen < config.samples:
        generator = torch.Generator().manual_seed((config.seed * 1009 + rank) * 100_000_007 + seen)
        rows = torch.randint(len(latents), (local,), generator=generator)
        variant = torch.randint(ids.shape[1], (local,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = rate(config, seen)
        loss = model.loss(network, latents[rows].float().to(device), ids[rows, variant].to(device), generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if average_gradients:
            average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        seen, step = seen + config.batch_size, seen // config.batch_size + 1
        if rank == 0:
            update_average(average, model, min(config.ema, step / (step + 9)))
        losses.append(loss.item())
        if step % log_every == 0:
            now = time.perf_counter()
            speed = len(losses) * config.batch_size / (now - clock)
            yield Progress(seen, sum(losses) / len(losses), rate(config, seen), speed)
            losses, clock = [], now
        if rank == 0 and (step % 500 == 0 or seen >= config.samples):
            save_checkpoint(checkpoint, model, optimizer, average, {"samples": seen})
