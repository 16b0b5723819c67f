"""The state that changes from step to step, and its file: safetensors with a JSON header, never pickle."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from orthoplex.adapters import Adapter
from orthoplex.concepts.foreign_files import CHECKPOINT_KEY
from orthoplex.errors import ConfigurationError
from orthoplex.files import write_tensors
from orthoplex.training.config import TrainingConfig
from orthoplex.training.optimizers import STATES, created, set_state, state_tensors

_TOKENS = "token vectors"
_STATE_KEYS = ("qmap1", "qmap2", "absmax1", "absmax2")
"""What 8-bit AdamW keeps besides, for large parameters."""
_ANEW = "overwrite (--overwrite) begins anew"


@dataclass(eq=False)
class TrainingState:
    """Everything that a step changes.

    Attributes:
        adapters: Layer name to adapter.
        vectors: The learned rows of the tokens, one a token, as ``TokenLearning.initial`` begins them.
        optimizer: Over the parameters of the U-Net's adapters, those of the text encoder's, and the vectors.
        step: How many steps are done.
    """

    adapters: Mapping[str, Adapter]
    vectors: nn.Parameter
    optimizer: torch.optim.Optimizer
    step: int = 0

    @staticmethod
    def begin(
        config: TrainingConfig,
        adapters: Mapping[str, Adapter],
        vectors: Tensor,
        of_text_encoders: Collection[str] = (),
    ) -> "TrainingState":
        """Start with untrained adapters and the initial vectors.

        Args:
            config: All knobs.
            adapters: Layer name to adapter.
            vectors: The learned rows of the tokens.
            of_text_encoders: Those of the layers that are a text encoder's.
        """
        parameter = nn.Parameter(vectors.clone())
        weights: dict[bool, list[nn.Parameter]] = {False: [], True: []}  # whether they are the text encoder's
        for layer, adapter in adapters.items():
            weights[layer in of_text_encoders] += adapter.parameters()
        of_text = config.text_encoder_learning_rate or config.weight_learning_rate
        groups = [
            {"params": weights[False], "lr": config.weight_learning_rate, "weight_decay": config.weight_decay},
            {"params": weights[True], "lr": of_text, "weight_decay": config.weight_decay},
            {"params": [parameter], "lr": config.token_learning_rate, "weight_decay": 0.0},
        ]
        return TrainingState(adapters, parameter, created(config.optimizer, groups))

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every trained parameter by name."""
        named = {
            f"{layer} {name}": parameter
            for layer, adapter in self.adapters.items()
            for name, parameter in adapter.named_parameters()
        }
        return {**named, _TOKENS: self.vectors}

    @torch.no_grad()
    def update(self, *, learning_rate_factor: float, gradient_clip: float, token_norm_limit: float | None) -> None:
        """Take one optimizer step from the gradients at hand, and clear them.

        Args:
            learning_rate_factor: Multiplies all groups' learning rates.
            gradient_clip: Largest norm of each group's gradient; 0 for no limit.
            token_norm_limit: Longest length of a token vector; None for no limit.
        """
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            if gradient_clip > 0:
                nn.utils.clip_grad_norm_(group["params"], gradient_clip)
            group["lr"] *= learning_rate_factor
        vectors_learn = self.vectors.grad is not None
        self.optimizer.step()
        self.optimizer.zero_grad()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if token_norm_limit is not None and vectors_learn:
            lengths = self.vectors.norm(dim=-1, keepdim=True)
            self.vectors.mul_((token_norm_limit / lengths).clamp(max=1.0))
        self.step += 1


def checkpoint_path(output: Path) -> Path:
    """Where the checkpoint of a concept file lies: ``<stem>.checkpoint.safetensors`` beside it."""
    return output.with_name(f"{output.stem}.checkpoint.safetensors")


@dataclass(frozen=True)
class CheckpointHeader:
    """The values of a checkpoint besides its tensors.

    Attributes:
        step: The number of steps that are done.
        identity: The run (configuration, dataset, base, …), plain JSON values.
        is_finished: True if the concept file of the run was written.
    """

    step: int
    identity: Mapping[str, Any]
    is_finished: bool


def save_checkpoint(
    state: TrainingState, path: Path, identity: Mapping[str, Any], *, is_finished: bool = False
) -> None:
    """Write parameters and optimizer state, atomically.

    Args:
        state: The state.
        path: The file.
        identity: The run (configuration, dataset, base, …), plain JSON values; compared when loading.
        is_finished: True if the concept file of the run is written.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.parameters().items():
        tensors[f"parameter {name}"] = parameter.detach()
        for key, value in state_tensors(state.optimizer, parameter).items():
            tensors[f"optimizer {key} {name}"] = value
    values = {"step": state.step, "identity": identity, **({"finished": True} if is_finished else {})}
    write_tensors(tensors, path, {CHECKPOINT_KEY: json.dumps(values, sort_keys=True)})


def load_checkpoint(
    state: TrainingState, path: Path, identity: Mapping[str, Any], *, free: Collection[str] = ()
) -> None:
    """Put a checkpoint into a freshly begun state.

    Args:
        state: The state.
        path: The checkpoint.
        identity: The run, as for ``save_checkpoint``.
        free: The values of the identity that need not agree, as ``config.steps``.

    Raises:
        ConfigurationError: When it cannot be read or belongs to another run; names what differs.
    """
    header = read_checkpoint_header(path)
    step = header.step
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(f"checkpoint {path} cannot be read: {error}") from error
    expected = json.loads(json.dumps(identity))
    _check_identity(path, _completed(header.identity, expected), expected, free)
    steps = identity.get("config", {}).get("steps", step)
    if step > steps:
        raise ConfigurationError(f"checkpoint {path} holds step {step} of {steps}; it is damaged")
    parameters = state.parameters()
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(_stored_tensor(tensors, f"parameter {name}", path, parameter.shape))
        if f"optimizer step {name}" in tensors:  # what has not learned yet has no such state
            shapes = dict.fromkeys(STATES[identity.get("config", {}).get("optimizer", "adamw")], parameter.shape)
            stored = {
                key: value for key in _STATE_KEYS if (value := tensors.get(f"optimizer {key} {name}")) is not None
            }
            for key, shape in {"step": (), **shapes}.items():
                stored[key] = _stored_tensor(tensors, f"optimizer {key} {name}", path, shape)
            set_state(state.optimizer, parameter, stored)
    state.step = step


def checkpoint_step(path: Path) -> int:
    """Return the number of steps that are done in a checkpoint.

    Raises:
        ConfigurationError: When it cannot be read.
    """
    return read_checkpoint_header(path).step


def read_checkpoint_header(path: Path) -> CheckpointHeader:
    """Read a checkpoint without its tensors.

    Raises:
        ConfigurationError: When it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            header = json.loads((opened.metadata() or {})[CHECKPOINT_KEY])
        step, identity = header["step"], header["identity"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ConfigurationError(f"checkpoint {path} cannot be read: {reason}; {_ANEW}") from error
    if type(step) is not int or step < 0 or not isinstance(identity, dict):
        raise ConfigurationError(f"checkpoint {path} cannot be read: its header is {header!r:.200}; {_ANEW}")
    return CheckpointHeader(step, identity, header.get("finished") is True)


def _completed(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stored identity with the options that are newer than it, at the values of training without them."""
    before, now = stored.get("config"), expected.get("config")
    if not isinstance(before, dict) or not isinstance(now, dict):
        return stored
    recorded = json.loads(json.dumps(TrainingConfig.recorded(before).to_json()))
    newer = {key: recorded[key] for key in now.keys() - before.keys() if key in recorded}
    return {**stored, "config": {**before, **newer}}


def _check_identity(
    path: Path, stored: Mapping[str, Any], expected: Mapping[str, Any], free: Collection[str], prefix: str = ""
) -> None:
    for key in (*expected, *sorted(stored.keys() - expected.keys())):  # in the order that says most
        before, now = stored.get(key), expected.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            _check_identity(path, before, now, free, f"{prefix}{key}.")
        elif before != now and f"{prefix}{key}" not in free:
            if key == "dataset":
                raise ConfigurationError(
                    f"checkpoint {path} was made with other pictures, captions or words; they must be as they were, or "
                    f"{_ANEW}"
                )
            name = f"{prefix}{key}".removeprefix("config.")
            raise ConfigurationError(
                f"checkpoint {path} was made with {name} {before!r}, this run has {now!r}; both must agree, or {_ANEW}"
            )


def _stored_tensor(tensors: Mapping[str, Tensor], name: str, path: Path, shape: Sequence[int]) -> Tensor:
    if name not in tensors:
        raise ConfigurationError(f"checkpoint {path} lacks the tensor {name!r}; it belongs to another run")
    if tensors[name].shape != tuple(shape):
        raise ConfigurationError(
            f"checkpoint {path} holds the tensor {name!r} with shape {tuple(tensors[name].shape)}; allowed is "
            f"{tuple(shape)}: it is damaged, or another version's"
        )
    return tensors[name]
