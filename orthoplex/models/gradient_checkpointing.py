"""Networks that compute parts a second time in the backward pass instead of storing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from orthoplex.errors import ConfigurationError
from orthoplex.models.mixed_precision import Float32Attention
from orthoplex.models.quiet import quiet

with quiet():
    from diffusers.models.modeling_utils import ModelMixin
    from transformers import PreTrainedModel
    from transformers.modeling_layers import GradientCheckpointingLayer


_PASSED_ON: ContextVar[Mapping[nn.Module, Mapping[str, Any]]] = ContextVar("passed on", default=MappingProxyType({}))


@contextmanager
def passed_on(parts: Iterable[nn.Module], **arguments: Any) -> Iterator[None]:  # noqa: ANN401 (a network's own)
    """Inside, parts that are computed a second time get arguments that their network forgets to hand them then.

    Args:
        parts: Those of a network.
        arguments: What the network hands them where they are computed once.
    """
    token = _PASSED_ON.set({**_PASSED_ON.get(), **dict.fromkeys(parts, arguments)})
    try:
        yield
    finally:
        _PASSED_ON.reset(token)


@contextmanager
def recomputed(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, networks store less of what they compute while gradients are on; results are the same.

    Forward and backward pass both belong inside, with everything that hooks into the networks.

    Args:
        networks: Those of diffusers and transformers.

    Raises:
        ConfigurationError: If a network cannot do so; names its class.
    """
    switched: list[tuple[nn.Module, str, Any]] = []
    try:
        for network in networks:
            for module in _switches(network):
                switched.append((module, "training", module.training))
                switched.append((module, "gradient_checkpointing", module.gradient_checkpointing))
                values = {"_gradient_checkpointing_func": _recompute, "gradient_checkpointing": True}
                if isinstance(module, GradientCheckpointingLayer):
                    values["training"] = True  # these ask for it; their parts, as Dropout, stay as they are
                for name, value in values.items():
                    setattr(module, name, value)
        yield
    finally:
        for module, name, value in reversed(switched):
            setattr(module, name, value)


def _switches(network: nn.Module) -> list[nn.Module]:
    """Return the modules of a network that can be switched, as the libraries' own methods find them."""
    able = isinstance(network, ModelMixin) and network._supports_gradient_checkpointing
    able = able or (isinstance(network, PreTrainedModel) and network.supports_gradient_checkpointing)
    switches = [module for module in network.modules() if "gradient_checkpointing" in _names(module)] if able else []
    if not switches:
        raise ConfigurationError(
            f"gradient_checkpointing is True, and {type(network).__name__} cannot compute its parts again; allowed is "
            "false"
        )
    return switches


def _names(module: nn.Module) -> set[str]:
    return {*vars(module), *(name for kind in type(module).__mro__ for name in vars(kind))}


def _recompute(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 (the libraries' protocol)
    more = _PASSED_ON.get().get(function, {}) if isinstance(function, nn.Module) else {}
    return checkpoint(partial(function, **more), *arguments, use_reentrant=False, context_fn=_contexts)


def _contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return what surrounds the first and the second computation: autocast returns by itself, attention does not."""
    return nullcontext(), Float32Attention() if torch.is_autocast_enabled("cpu") else nullcontext()
