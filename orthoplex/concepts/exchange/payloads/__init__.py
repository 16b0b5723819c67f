"""Which numbers stand behind the keys of one module: one row a kind of payload, read without torch.

A new kind is one file in this folder with a final class of ``Payload``, the form of its shapes in ``forms.py``, and one
row in ``PAYLOADS``. A payload knows no names of layers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, final

from orthoplex.concepts.exchange.payloads.forms import (
    difference_form,
    embedding_form,
    hadamard_form,
    kronecker_form,
    low_rank_bias_form,
    low_rank_form,
)
from orthoplex.concepts.exchange.payloads.refusals import REFUSED
from orthoplex.concepts.exchange.payloads.row import ADAPTER, Form, PayloadRow, Shapes
from orthoplex.errors import ConfigurationError
from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.concepts.exchange.payloads.payload import Difference, Payload

__getattr__ = exports(__name__, {"Difference": "payload", "Payload": "payload"})

__all__ = ["PAYLOADS", "Difference", "Form", "KeyParts", "Payload", "PayloadRow", "Shapes"]
__all__ += ["form_of", "load_payload", "payloads_of", "split_key"]


def _factor(*stems: str) -> tuple[str, ...]:
    """Return the endings of a factor that is a module: with an adapter's name or without."""
    return tuple(ending for stem in stems for ending in (f"{stem}.weight", f"{stem}.{ADAPTER}.weight"))


def _parameter(*stems: str) -> tuple[str, ...]:
    """Return the endings of a factor that is a parameter: with an adapter's name or without."""
    return tuple(ending for stem in stems for ending in (stem, f"{stem}.{ADAPTER}"))


NUMBERS = {"alpha": (".alpha",), "scale": (".scale",)}
"""Parts that are one number, and no factor -> the endings of their keys."""
_DOWN = {
    "down": (
        *(".lora_down.weight", ".lora.down.weight", "_lora.down.weight", ".lora_linear_layer.down.weight"),
        *(*_factor(".lora_A"), *_parameter(".lora_A")),
    )
}
_UP = {
    "up": (
        *(".lora_up.weight", ".lora.up.weight", "_lora.up.weight", ".lora_linear_layer.up.weight"),
        *(*_factor(".lora_B"), *_parameter(".lora_B")),
    )
}
_MID = {"mid": (".lora_mid.weight",)}
_HADAMARD = ("w1_a", "w1_b", "w2_a", "w2_b")
_KRONECKER = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")

PAYLOADS: dict[str, PayloadRow] = {
    "low-rank": PayloadRow(
        "a low-rank product (LoRA, LoCon)",
        {**_DOWN, **_UP, **_MID, **NUMBERS},
        required=(("down", "up"),),
        form=low_rank_form,
        module="low_rank",
        payload="LowRankProduct",
    ),
    "low-rank bias": PayloadRow(
        "a bias beside a low-rank product",
        {"up_bias": (".lora_B.bias", f".lora_B.{ADAPTER}.bias"), **_DOWN, **_UP, **_MID, **NUMBERS},
        required=(("up_bias", "down", "up"),),
        form=low_rank_bias_form,
        module="low_rank",
        payload="LowRankBias",
        parameter="bias",
    ),
    "low-rank embedding": PayloadRow(
        "a low-rank product of an embedding",
        {
            "embedding_down": _parameter(".lora_embedding_A"),
            "embedding_up": _parameter(".lora_embedding_B"),
            **NUMBERS,
        },
        required=(("embedding_down", "embedding_up"),),
        form=embedding_form,
        module="low_rank",
        payload="LowRankEmbedding",
    ),
    "hadamard": PayloadRow(
        "a product of two low-rank changes number by number (LoHa)",
        {
            **{part: _parameter(f".hada_{part}") for part in (*_HADAMARD, "t1", "t2")},
            **NUMBERS,
        },
        required=(_HADAMARD,),
        form=hadamard_form,
        module="hadamard",
        payload="HadamardProduct",
    ),
    "kronecker": PayloadRow(
        "a Kronecker product (LoKr)",
        {
            **{part: _parameter(f".{part}") for part in (*_KRONECKER, "lokr_t2")},
            **NUMBERS,
        },
        required=(
            ("lokr_w1", "lokr_w2"),
            ("lokr_w1", "lokr_w2_a", "lokr_w2_b"),
            ("lokr_w1_a", "lokr_w1_b", "lokr_w2"),
            ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"),
        ),
        form=kronecker_form,
        module="kronecker",
        payload="KroneckerProduct",
    ),
    "difference": PayloadRow(
        "a full difference of a weight",
        {"diff": (".diff",)},
        required=(("diff",),),
        form=difference_form,
        module="difference",
        payload="FullDifference",
    ),
    "norm difference": PayloadRow(
        "a full difference of a norm's weight",
        {"w_norm": (".w_norm",)},
        required=(("w_norm",),),
        form=difference_form,
        module="difference",
        payload="FullDifference",
    ),
    "bias difference": PayloadRow(
        "a full difference of a bias",
        {"diff_b": (".diff_b", ".b_norm")},
        required=(("diff_b",),),
        form=difference_form,
        module="difference",
        payload="FullDifference",
        parameter="bias",
    ),
    **REFUSED,
}
"""Name to kind."""

_ENDINGS = {ending: part for row in PAYLOADS.values() for part, spelled in row.parts.items() for ending in spelled}
_REFUSED_PARTS = {part: name for name, row in REFUSED.items() for part in row.parts}
_BEGINNINGS = tuple(part for part in _REFUSED_PARTS if part.endswith("_"))
_LAST = frozenset({"weight", "bias", "on_input", "rescale", "lambda_layer"})
"""Refused names that say nothing inside a key: a layer may be called so."""
_MOST_NAMES = max(ending.count(".") for ending in _ENDINGS)


@final
@dataclass(frozen=True)
class KeyParts:
    """A key of a file, taken apart.

    Attributes:
        module: The module as the file names it.
        part: What of the module's payload the tensor is; for a kind that is refused, the rest of the key.
        adapter: The name that PEFT gave the adapter; empty where the key has none.
    """

    module: str
    part: str
    adapter: str = ""


def split_key(key: str) -> KeyParts | None:
    """Return the module and the part that a key names; None if no kind of payload has such an ending.

    The longest ending counts, so that ``to_q.lora.down.weight`` is the part ``down`` of ``to_q``.
    """
    names = key.split(".")
    for i in range(1, len(names)):
        if names[i] not in _LAST and _refused_kind(names[i]):
            return KeyParts(".".join(names[:i]), ".".join(names[i:]))
    for first in range(max(1, len(names) - _MOST_NAMES), len(names)):
        module, ending = ".".join(names[:first]), names[first:]
        if module.endswith("_lora") and (part := _ENDINGS.get("_lora." + ".".join(ending))):
            return KeyParts(module.removesuffix("_lora"), part)
        if part := _ENDINGS.get("." + ".".join(ending)):
            return KeyParts(module, part)
        for i in range(1, len(ending)):
            if part := _ENDINGS.get("." + ".".join((*ending[:i], ADAPTER, *ending[i + 1 :]))):
                return KeyParts(module, part, ending[i])
    return None


def payloads_of(parts: Collection[str]) -> list[str]:
    """Return the kinds of payload of one module, at most one for each of its parameters.

    A single kind that is refused stands for all of its module's parts; its row says why.

    Args:
        parts: The parts that the file has of the module.

    Raises:
        ConfigurationError: when a part is missing or belongs to none of the module's kinds, or two kinds change one
            parameter.
    """
    has = frozenset(parts)
    refused = {_refused_kind(part) for part in has} - {""}
    for name in REFUSED:
        if name in refused:
            return [name]
    names = [name for name, row in PAYLOADS.items() if not row.refusal and _is_meant(name, has)]
    for name in names:
        row = PAYLOADS[name]
        if (has & row.identifying) not in [frozenset(required) for required in row.required]:
            allowed = " or ".join(", ".join(required) for required in row.required)
            own = ", ".join(part for part in row.parts if part in has)
            raise ConfigurationError(f"{row.description} has the parts {own}; allowed are {allowed}")
    lost = has - {part for name in names for part in PAYLOADS[name].parts}
    if lost:
        raise ConfigurationError(f"has the parts {', '.join(sorted(lost))} without what they belong to")
    for parameter in ("weight", "bias"):
        same = [name for name in names if PAYLOADS[name].parameter == parameter]
        if len(same) > 1:
            text = " and ".join(PAYLOADS[name].description for name in same)
            raise ConfigurationError(f"has {text}; allowed is one change of a {parameter}")
    return names


def form_of(name: str, shapes: Shapes) -> Form:
    """Return what the shapes of a module's parts say about its change: shape and ranks, without torch.

    Args:
        name: A kind in ``PAYLOADS`` that is not refused.
        shapes: Part to shape; parts of other kinds do not matter.

    Raises:
        ConfigurationError: when the shapes do not fit together, or the kind is refused.
    """
    row = PAYLOADS[name]
    if row.form is None:
        raise ConfigurationError(f"is {row.description}: {row.refusal}")
    return row.form({part: shape for part, shape in shapes.items() if part in row.parts and part not in NUMBERS})


def load_payload(name: str) -> Payload:
    """Return the arithmetic of a kind of payload; loads torch.

    Args:
        name: A kind in ``PAYLOADS``.

    Raises:
        ConfigurationError: when the kind is refused.
    """
    row = PAYLOADS[name]
    if row.refusal:
        raise ConfigurationError(f"is {row.description}: {row.refusal}")
    return getattr(import_module(f"{__name__}.{row.module}"), row.payload)()


def _refused_kind(part: str) -> str:
    """Return the kind that is refused of which this is a part, whatever follows it; empty if it is of none."""
    if part.startswith(_BEGINNINGS):
        return next(_REFUSED_PARTS[beginning] for beginning in _BEGINNINGS if part.startswith(beginning))
    return _REFUSED_PARTS.get(part) or _REFUSED_PARTS.get(part.split(".")[0], "")


def _is_meant(name: str, has: frozenset[str]) -> bool:
    """Return True if a module has a part that only this kind, or only this kind and its bias, has."""
    row = PAYLOADS[name]
    own = row.identifying - (PAYLOADS["low-rank"].identifying if name == "low-rank bias" else frozenset())
    return bool(has & own)
