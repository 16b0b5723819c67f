"""The text pairs in the header of a written LoRA file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from orthoplex.concepts.exchange.adapter_settings import METADATA_KEY
from orthoplex.concepts.exchange.detection import ARCHITECTURE_KEY, architecture_of, hinted_versions
from orthoplex.concepts.exchange.embedding_keys import TOKEN_KEY
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.exchange.modules import WrittenModule
from orthoplex.concepts.exchange.styles import Style
from orthoplex.concepts.manifest_json import MANIFEST_KEY

_OF_THE_OLD_FILE = (METADATA_KEY, MANIFEST_KEY, TOKEN_KEY)
_HASHES = ("sshs_", "sshash", "modelspec.hash_")
"""Pairs, and beginnings of pairs, that would be wrong in another file."""
_RANKS = ("ss_network_dim", "ss_network_alpha")


def written_metadata(
    lora: LoraFile, style: Style, modules: Sequence[WrittenModule], rank_of: Callable[[WrittenModule], int]
) -> dict[str, str]:
    """Return the file's own pairs, with ranks as they are written; those of its old bytes are left out.

    Args:
        lora: The changes.
        style: The style that is written.
        modules: Its modules.
        rank_of: Module to the rank that it is written with.
    """
    pairs = {
        key: value
        for key, value in lora.metadata.items()
        if key not in _OF_THE_OLD_FILE and not key.startswith(_HASHES)
    }
    architecture = None if lora.version is None else architecture_of(lora.version)
    if architecture is not None and lora.version not in hinted_versions(pairs):
        pairs[ARCHITECTURE_KEY] = architecture  # so that the file's family is clear where its layers are another's too
    ranks = {module.name: rank_of(module) for module in modules if module.rank}
    if ranks:
        largest = max(ranks.values())
        pairs |= {key: str(largest) for key in _RANKS if key in pairs}
        if style.name == "diffusers":
            pairs[METADATA_KEY] = json.dumps(peft_settings(ranks), sort_keys=True)
    return {"format": "pt", **pairs}


def _pattern(name: str, names: Iterable[str]) -> str:
    """The pattern that PEFT compares with the ends of names, for a name alone: from its first letter on if need be."""
    return f"^{name}" if any(other.endswith(f".{name}") for other in names) else name


def peft_settings(ranks: dict[str, int]) -> dict[str, object]:
    """Return PEFT's settings of every component, as diffusers reads them: alpha is the rank.

    Text encoder paths are given without ``text_model.``, which newer text encoders no longer have; PEFT compares the
    ends of names.

    Args:
        ranks: Module, with its component, to its rank.
    """
    components: dict[str, dict[str, int]] = {}
    for name, rank in sorted(ranks.items()):
        component, _, path = name.partition(".")
        components.setdefault(component, {})[path.removeprefix("text_model.")] = rank
    settings: dict[str, object] = {}
    for component, own in components.items():
        largest = max(own.values())
        others = {_pattern(name, own): rank for name, rank in own.items() if rank != largest}
        settings[f"{component}.r"] = settings[f"{component}.lora_alpha"] = largest
        settings[f"{component}.rank_pattern"] = settings[f"{component}.alpha_pattern"] = others
        settings[f"{component}.target_modules"] = list(own)
    return settings
