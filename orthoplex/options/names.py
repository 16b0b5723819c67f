"""The names that options take, known before their rooms are loaded.

The command line shows them, and checks some, without torch. Rooms take theirs from here; the tests hold these tables
against the registries.
"""

from __future__ import annotations

from typing import Literal, get_args

METHOD_NAMES = ("lora", "orthogonal", "blockwise", "dual", "full")
"""Methods of adaptation, in the order of ``orthoplex.adapters.METHODS``."""

PRESET_NAMES = ("orthoplex", "orthogonal-adaptation", "blocklora")
"""Presets of training, in the order of ``orthoplex.training.presets.PRESETS``."""

Basis = Literal["slot", "random", "gaussian", "identical", "half"]
"""Sources of the frozen directions of a method."""

Precision = Literal["no", "bf16", "auto"]
"""``"no"`` computes in the weights' own type, ``"bf16"`` under autocast, ``"auto"`` as ``chosen_precision`` says."""

WeightType = Literal["float16", "bfloat16", "float32"]
"""Types of the weights in files, as torch names them."""

OriginalsPlace = Literal["memory", "pinned", "mapped"]
"""Where the original numbers of changed weights are stored."""

Quantisation = Literal["bnb-8bit", "bnb-4bit", "torchao-int8", "torchao-int4", "torchao-fp8"]
"""How the linear layers of a denoiser are quantised when it is loaded: the library, and the type of the numbers."""

AUTO = "auto"
"""Stands for the merging algorithm that suits the concepts."""

EncoderKind = Literal["mobilenet", "clip", "dino", "face"]
"""Kinds of encoders; all but the first take a model: a folder, or a name where they find models."""

MOBILENET: EncoderKind = "mobilenet"
"""The kind of encoder that needs no model."""

ENCODERS: tuple[EncoderKind, ...] = get_args(EncoderKind)
"""All kinds of encoders."""
