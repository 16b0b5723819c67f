"""Muon over weights that several processes share: each computes gradients on its pictures, then updates its share.

Matrices (and convolutions, as matrices of their output channels) move along the orthogonalised momentum
(Jordan 2024, https://kellerjordan.github.io/posts/muon), scaled so that a step has AdamW's usual size (Liu et al. 2025,
arXiv:2502.16982); embeddings, first and last convolution, biases and norms get AdamW.
The networks compute with weights rounded as they will ship (`rounding.py`).
Weights, gradients, moments and the moving average are flat tensors, in shared memory if there are several processes:
on a CPU two processes with one thread each beat one process with two threads, and nothing is copied between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

import torch
from torch import Tensor, nn

from pretraining.rounding import rounded

MOMENTUM, WEIGHT_DECAY = 0.95, 0.01
ADAM_BETAS, ADAM_EPSILON = (0.9, 0.99), 1e-8
#: quintic Newton–Schulz coefficients of Jordan 2024
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
#: of the networks' parameters, those that are no map between hidden features
NOT_HIDDEN = ("embeddings.", "conv_in.", "conv_out.")


def orthogonalised(matrix: Tensor) -> Tensor:
    """(m, n) -> the same shape and type, with the same singular vectors and singular values near 1."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


@dataclass(frozen=True)
class Slice:
    """Where a parameter lies in the flat tensors, as what it is updated, and by which process."""

    name: str
    start: int
    shape: torch.Size
    hidden: bool
    owner: int

    @property
    def stop(self) -> int:
        """One past its last element."""
        return self.start + math.prod(self.shape)


def layout(model: nn.Module, processes: int) -> list[Slice]:
    """A slice per parameter, in the model's order; every process owns about the same work."""
    work, slices, start = [0.0] * processes, [], 0
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim >= 2 and not any(part in name for part in NOT_HIDDEN)
        size = parameter.numel()
        cost = size * (1.0 + (min(len(parameter), size // len(parameter)) / 20 if hidden else 0))
        owner = work.index(min(work))
        work[owner] += cost
        slices.append(Slice(name, start, parameter.shape, hidden, owner))
        start += size
    return slices


def named(model: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    """The parts of a flat tensor by the names of the model's parameters.

    Raises:
        ValueError: When the tensor has another length than the model has parameters.
    """
    size = sum(parameter.numel() for parameter in model.parameters())
    if len(flat) != size:
        raise ValueError(f"{len(flat)} weights were kept; the model has {size}")
    return {part.name: flat[part.start : part.stop].view(part.shape) for part in layout(model, 1)}


class Shared:
    """The flat tensors: weights (float32), their working copy, moments, average, gradients per process.

    The working copy, the gradients and what is made of them are of `dtype`, bf16 or float32; the working copy is on a
    grid of `rounding_steps` in a standard deviation (`rounding.py`).
    """

    def __init__(
        self,
        model: nn.Module,
        processes: int = 1,
        device: str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        rounding_steps: int = 16,
    ) -> None:
        self.slices, self.rounding_steps = layout(model, processes), rounding_steps
        self.weights = nn.utils.parameters_to_vector(model.parameters()).detach().float().to(device)
        self.working = torch.empty_like(self.weights, dtype=dtype)
        self.average = self.weights.clone()
        self.first, self.second = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.gradients = torch.zeros(processes, len(self.weights), dtype=dtype, device=device)
        self.renew(self.slices)
        if processes > 1:
            for tensor in (self.working, self.gradients, *self.state_dict().values()):
                tensor.share_memory_()

    def renew(self, parts: Iterable[Slice]) -> None:
        """Bring the working copy of some parameters up to their weights."""
        for part in parts:
            own = slice(part.start, part.stop)
            self.working[own] = rounded(self.weights[own], part.shape, self.rounding_steps)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("weights", "average", "first", "second")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore, in place."""
        for name, value in state.items():
            getattr(self, name).copy_(value)
        self.renew(self.slices)


class Muon:
    """Steps a model whose parameters become views of `shared.working`.

    Args:
        model: Gets parameters of the working copy's type.
        shared: Of the same model; every process passes the same one.
        rank: Which process this is.
        barrier: Passed by all processes together; None for one process.
    """

    def __init__(self, model: nn.Module, shared: Shared, rank: int = 0, barrier: Barrier | None = None) -> None:
        self.shared, self.rank, self.barrier = shared, rank, barrier
        self.parameters = list(model.parameters())
        for part, parameter in zip(shared.slices, self.parameters, strict=True):
            parameter.data = shared.working[part.start : part.stop].view(part.shape)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.barrier is not None:
            self.barrier.wait()

    def step(self, learning_rate: float, adam_learning_rate: float, step: int, ema_decay: float) -> None:
        """One update at the learning rates given; `step` counts from 1."""
        self.gather()
        self.wait()
        self.update(learning_rate, adam_learning_rate, step, ema_decay)
        self.wait()

    @torch.no_grad()
    def gather(self) -> None:
        """Put this process's gradients where all see them."""
        mine = self.shared.gradients[self.rank]
        for part, parameter in zip(self.shared.slices, self.parameters, strict=True):
            flat = mine[part.start : part.stop]
            flat.zero_() if parameter.grad is None else flat.view(part.shape).copy_(parameter.grad)
            parameter.grad = None

    @torch.no_grad()
    def update(self, learning_rate: float, adam_learning_rate: float, step: int, ema_decay: float) -> None:
        """Move the parameters that this process owns along the mean gradient."""
        for part in self.shared.slices:
            if part.owner == self.rank:
                self._update(part, learning_rate if part.hidden else adam_learning_rate, step, ema_decay)

    def _update(self, part: Slice, learning_rate: float, step: int, ema_decay: float) -> None:
        own, shared = slice(part.start, part.stop), self.shared
        gradient = shared.gradients[:, own].float().mean(0)
        weights, first = shared.weights[own], shared.first[own]
        if part.hidden:
            first.lerp_(gradient, 1 - MOMENTUM)
            matrix = gradient.lerp_(first, MOMENTUM).view(part.shape[0], -1)
            direction = orthogonalised(matrix.to(shared.working.dtype)).reshape(-1)
            size = 0.2 * math.sqrt(max(matrix.shape))
        else:
            second = shared.second[own]
            first.lerp_(gradient, 1 - ADAM_BETAS[0])
            second.mul_(ADAM_BETAS[1]).addcmul_(gradient, gradient, value=1 - ADAM_BETAS[1])
            root = (second / (1 - ADAM_BETAS[1] ** step)).sqrt_().add_(ADAM_EPSILON)
            direction, size = first / root, 1 / (1 - ADAM_BETAS[0] ** step)
        if len(part.shape) > 1:
            weights.mul_(1 - learning_rate * WEIGHT_DECAY)
        weights.add_(direction, alpha=-learning_rate * size)
        shared.renew([part])
        shared.average[own].lerp_(weights, 1 - ema_decay)
