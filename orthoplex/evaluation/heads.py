"""Linear heads: classifiers of pictures on frozen features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from orthoplex.errors import ConfigurationError
from orthoplex.files import write_tensors

_HEADER = "orthoplex-head"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Multinomial logistic regression on features: `p(c | f) = softmax(W f + b)_c`.

    Attributes:
        weight: `(classes, d)` float32.
        bias: `(classes,)` float32.
        classes: Names, one a row of `weight`.
        encoder: Name of the encoder whose features it reads (`Encoder.name`).
    """

    weight: Tensor
    bias: Tensor
    classes: tuple[str, ...]
    encoder: str

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit."""
        rows = len(self.classes)
        if self.weight.ndim != 2 or self.weight.shape[0] != rows or self.bias.shape != (rows,):
            raise ConfigurationError(
                f"head has weight {tuple(self.weight.shape)} and bias {tuple(self.bias.shape)}; "
                f"allowed for its {rows} classes: ({rows}, d) and ({rows},)"
            )

    def logits(self, features: Tensor) -> Tensor:
        """`W f + b` of every row: `(n, d)` -> `(n, classes)`.

        Raises:
            ConfigurationError: when the features have another width.
        """
        if features.ndim != 2 or features.shape[1] != self.weight.shape[1]:
            raise ConfigurationError(
                f"features have the shape {tuple(features.shape)}; allowed: (n, {self.weight.shape[1]})"
            )
        return features.float() @ self.weight.T + self.bias

    def predict(self, features: Tensor) -> list[str]:
        """The most likely class of every row."""
        return [self.classes[int(index)] for index in self.logits(features).argmax(dim=1)]

    def accuracy(self, features: Tensor, truth: Sequence[str]) -> float:
        """Share of rows whose most likely class is the true one.

        Raises:
            ConfigurationError: when the number of names differs from the number of rows, or is 0.
        """
        if len(truth) != len(features) or not truth:
            raise ConfigurationError(
                f"{len(truth)} true classes for {len(features)} rows; allowed: one for each, 1 or more"
            )
        return sum(guess == name for guess, name in zip(self.predict(features), truth, strict=True)) / len(truth)


def fit_linear_head(
    features: Tensor,
    truth: Sequence[str],
    *,
    encoder: str,
    classes: Sequence[str] | None = None,
    weight_decay: float = 1e-4,
    iterations: int = 200,
) -> LinearHead:
    """Fit a head: minimise `mean_i -log p(truth_i | f_i) + weight_decay/2 * |W|^2` by L-BFGS from zero.

    Features are centred and divided by one overall deviation before the fit (both are folded back into W and b), so
    that `weight_decay` means the same for every encoder. The problem is convex and starts at zero: no seed.

    Args:
        features: `(n, d)`.
        truth: n class names.
        encoder: Name of the encoder that made the features.
        classes: The classes and their order; default: the sorted names of `truth`.
        weight_decay: Strength of the penalty, 0 or more.
        iterations: Most L-BFGS iterations.

    Raises:
        ConfigurationError: for lengths that differ, fewer than two classes, or a name that is no class.
    """
    if len(truth) != len(features) or not truth:
        raise ConfigurationError(
            f"{len(truth)} true classes for {len(features)} rows; allowed: one for each, 1 or more"
        )
    names = tuple(sorted(set(truth)) if classes is None else classes)
    if len(names) < 2:
        raise ConfigurationError(f"the head has the classes {names}; allowed: two or more")
    unknown = set(truth) - set(names)
    if unknown:
        raise ConfigurationError(f"true class {min(unknown)!r} is unknown; allowed: {', '.join(names)}")
    centre = features.float().mean(dim=0)
    centred = features.float() - centre
    spread = centred.pow(2).sum(dim=1).mean().sqrt().clamp_min(1e-12)
    inputs = centred / spread
    target = torch.tensor([names.index(name) for name in truth])
    weight = torch.zeros(len(names), features.shape[1], requires_grad=True)
    bias = torch.zeros(len(names), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs @ weight.T + bias, target)
        loss = loss + 0.5 * weight_decay * weight.pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(objective)  # pyright: ignore[reportArgumentType]  # torch types the closure as returning float
    scaled = weight.detach() / spread
    return LinearHead(scaled, bias.detach() - scaled @ centre, names, encoder)


def save_head(head: LinearHead, path: Path) -> None:
    """Write a head as fp16 safetensors, names in the header; atomic (temporary file, then rename)."""
    header = {"version": _VERSION, "classes": list(head.classes), "encoder": head.encoder}
    tensors = {"weight": head.weight.half(), "bias": head.bias.half()}
    write_tensors(tensors, path, {_HEADER: json.dumps(header)})


def load_head(path: Path) -> LinearHead:
    """Read a head that `save_head` wrote.

    Raises:
        ConfigurationError: when the file is missing, is no head, or is of another version.
    """
    if not path.is_file():
        raise ConfigurationError(f"head {path} does not exist; allowed: a file that save_head wrote")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "{}"))
            if header.get("version") != _VERSION:
                raise ConfigurationError(f"head {path} has version {header.get('version')}; allowed: {_VERSION}")
            weight, bias = file.get_tensor("weight").float(), file.get_tensor("bias").float()
    except SafetensorError as error:
        raise ConfigurationError(
            f"head {path} is not readable: {error}; allowed: a file that save_head wrote"
        ) from error
    return LinearHead(weight, bias, tuple(header["classes"]), header["encoder"])
