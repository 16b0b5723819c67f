"""The trainings of papers, as options; options that are given win over those of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from orthoplex.errors import ConfigurationError


@final
@dataclass(frozen=True)
class Preset:
    """A training as a paper describes it.

    Attributes:
        options: Training option to value; all others are the base's own.
        instead: Option to the value nearest to the preset's, for bases that cannot do the latter.
    """

    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    instead: Mapping[str, Any] = field(default_factory=dict[str, Any])


DEFAULT_PRESET: Final = "orthoplex"
PRESETS: Final[Mapping[str, Preset]] = {
    DEFAULT_PRESET: Preset(),
    "orthogonal-adaptation": Preset(
        {
            "method": "orthogonal",
            "basis": "random",
            "rank": 20,
            "down_scale": 0.5,
            "layers": "linear",
            "text_encoder": True,
            "token_vectors": "layer-wise",
            "num_vectors": 2,
            "token_start": "rare and class word",
            "trigger_form": "token",
            "token_learning_rate": 1e-3,
            "learning_rate": 1e-5,
            "erasure": 0.0,
            "prior_weight": 0.0,
        },
        instead={"token_vectors": "shared"},
    ),
    "blocklora": Preset(
        {
            "method": "blockwise",
            "blocks": "rows",
            "slots": 16,
            "erasure": 30.0,
            "erasure_form": "activation",
        },
    ),
}
"""Name to preset, in the order of ``options.PRESET_NAMES``.

``orthogonal-adaptation`` has the values of the paper (Po et al., arXiv 2312.02432). Its code differs: rank 32, the
attention layers alone, learning rates of 3e-6 to 1e-5 for the text encoder and 3e-5 to 1e-4 for the U-Net; the length
0.5 of a direction is the code's. The number of steps is in neither, so it is the base's own.

``blocklora`` is a reconstruction from the abstract of Zhu et al., arXiv 2503.08575, which names a blockwise
parameterisation and randomised output erasure: a block of rows, for up to 16 concepts, and erasure in the loss. All
numbers are ours.
"""


def preset_of(name: object) -> Preset:
    """Return the preset of a name.

    Raises:
        ConfigurationError: When there is none; names those that there are.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigurationError(f"preset is {name!r}; allowed are {', '.join(map(repr, PRESETS))}")
    return PRESETS[name]


def nearest_in_words(name: str, option: str) -> str:
    """Return what to give for an option that a base cannot do as a preset wants it; empty where nobody wants it."""
    nearest = PRESETS[name].instead
    return f"; nearest to preset {name!r} is {option}={nearest[option]}" if option in nearest else ""
