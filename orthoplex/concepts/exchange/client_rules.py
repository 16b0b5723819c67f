"""What other programs read of a LoRA file: measured or read in their code, and asked of a header without torch.

``docs/clients.md`` has the versions, the dates and how each rule was learnt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from orthoplex.concepts.exchange.lora_keys import LoraKeys
from orthoplex.files import Header

Rule = Callable[[LoraKeys], Iterator[str]]
"""What is wrong with a file for a program, in words that follow its name; nothing where nothing is."""


@final
@dataclass(frozen=True)
class Client:
    """A program that reads LoRA files.

    Attributes:
        name: As people know it.
        version: What was measured, or the date of the code that was read.
        modules: Family, by the name of its layer table, to the names of modules that the program knows there.
        parts: Parts of a change that it reads, as ``LoraKeys`` names them.
        rules: What else it asks of a file.
    """

    name: str
    version: str
    modules: Mapping[str, re.Pattern[str]]
    parts: frozenset[str]
    rules: tuple[Rule, ...] = ()

    def takes(
        self, header: Header, family: str, alphas: Mapping[str, float] = MappingProxyType({})
    ) -> list[str] | None:
        """Return what the program would not read, or read wrongly, a line each; none means whole and exact.

        Args:
            header: Of the file.
            family: The file's family, by the name of its layer table.
            alphas: Module to its alpha; a module that is left out has its rank for alpha.

        Returns:
            None for a family that nothing is known about.
        """
        known = self.modules.get(family)
        if known is None:
            return None
        keys = LoraKeys.of(header, alphas)
        return [*self._unread(keys, known), *(line for rule in self.rules for line in rule(keys))]

    def _unread(self, keys: LoraKeys, known: re.Pattern[str]) -> Iterator[str]:
        foreign = [module for module in keys.modules if not any(map(known.fullmatch, _spelled(keys, module)))]
        if len(foreign) == len(keys.modules):
            yield "reads none of its layers" + (f", such as {foreign[0]}" if foreign else "")
            return
        if foreign:
            yield f"does not read {len(foreign)} of {len(keys.modules)} layers, such as {foreign[0]}"
        unread = {
            part: module
            for module in reversed(list(keys.modules))
            for part in keys.modules[module]
            if part not in self.parts and module not in foreign
        }
        for part, module in sorted(unread.items()):
            yield f"does not read {_PART_NAMES[part]}, as in layer {module}"


_PART_NAMES = {
    "mid": "the middle factor of a convolution",
    "alpha": "alpha",
    "magnitude": "the magnitudes of DoRA",
    "LoHa": "LoHa",
    "LoKr": "LoKr",
    "difference": "full differences",
    "down": "low-rank factors",
    "up": "low-rank factors",
}


def _spelled(keys: LoraKeys, module: str) -> Iterator[str]:
    """The module with each ending of its factors; other parts follow the module's name alone."""
    factors = [ending for ending in keys.spellings[module] if "lora_" in ending or "lora." in ending]
    yield from (module + ending for ending in factors or [".lora_down.weight"])


def _example(modules: list[str]) -> str:
    return f"{len(modules)} layers, such as {modules[0]}" if len(modules) > 1 else f"layer {modules[0]}"


def _refuses_other_tensors(allowed: str = r"(?!)") -> Rule:
    """The whole file is refused for one tensor that is part of no change."""

    def rule(keys: LoraKeys) -> Iterator[str]:
        for key in [key for key in keys.others if not re.match(allowed, key)][:1]:
            yield f"refuses the file for tensor {key}, which is no LoRA"

    return rule


def _leaves_out_other_tensors(limit: int | None = None) -> Rule:
    """Tensors that are part of no change are left out; beyond a limit the whole file is."""

    def rule(keys: LoraKeys) -> Iterator[str]:
        if limit is not None and len(keys.others) > limit:
            yield f"leaves out the whole file for {len(keys.others)} tensors that are no LoRA, such as {keys.others[0]}"
        elif keys.others:
            yield f"leaves out tensor {keys.others[0]}, which is no LoRA"

    return rule


def _one_type_a_layer(keys: LoraKeys) -> Iterator[str]:
    mixed = [
        module
        for module, parts in keys.modules.items()
        if len({parts[part].dtype for part in ("down", "up") if part in parts}) > 1
    ]
    if mixed:
        first = keys.modules[mixed[0]]
        yield f"refuses factors of two types: {first['down'].dtype} and {first['up'].dtype} in {_example(mixed)}"


def _scalar_alpha(keys: LoraKeys) -> Iterator[str]:
    lists = [module for module, parts in keys.modules.items() if "alpha" in parts and parts["alpha"].shape != ()]
    if lists:
        shape = list(keys.modules[lists[0]]["alpha"].shape)
        yield f"refuses an alpha of shape {shape}, allowed is []: {_example(lists)}"


def _one_alpha_a_component(keys: LoraKeys) -> Iterator[str]:
    """Kohya's names only: alphas that are not the commonest of their component are read as if they were."""
    named = [module for module in keys.modules if module.startswith("lora_") and "alpha" in keys.modules[module]]
    for prefix in ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_", "lora_transformer_"):
        alphas = {keys.alpha(module) for module in named if module.startswith(prefix)} - {None}
        if len(alphas) > 1:
            some = ", ".join(f"{alpha:g}" for alpha in sorted(filter(None, alphas))[:3])
            yield f"reads alphas that differ wrongly: {some} in {prefix}…"


def _no_adapter_metadata(keys: LoraKeys) -> Iterator[str]:
    if "lora_adapter_metadata" in keys.metadata and any("alpha" in parts for parts in keys.modules.values()):
        yield "refuses header key lora_adapter_metadata beside alpha"


def _ignores_alpha(keys: LoraKeys) -> Iterator[str]:
    others = [module for module in keys.alphas if keys.alphas[module] != keys.rank(module)]
    if others:
        first = others[0]
        yield f"ignores alpha: {keys.alphas[first]:g} with rank {keys.rank(first)} in {_example(others)}"


def _one_pixel_windows(keys: LoraKeys) -> Iterator[str]:
    if wide := keys.windows():
        yield f"refuses convolutions wider than one pixel: {_example(wide)}"


_FACTORS = frozenset({"down", "up", "alpha"})
_LYCORIS = _FACTORS | {"mid", "magnitude", "LoHa", "LoKr", "difference"}

_KOHYA = r"\.lora_(down|up)\.weight"
_PEFT = r"\.lora_[AB]\.weight"
_OLD = r"\.lora\.(down|up)\.weight"
_ANY = rf"({_KOHYA}|{_PEFT}|{_OLD}|\.lora_[AB](\.default\.weight)?)"
_UNET = r"(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding)\b[\w.]*"
_UNET_FLAT = r"(down_blocks_|mid_block_|up_blocks_|conv_in|conv_out|time_embedding_|add_embedding_)\w*"
_CODE_UNET = r"(input_blocks|middle_block|output_blocks|out|time_embed|label_emb)\.[\w.]+"
_CODE_UNET_FLAT = r"(input_blocks|middle_block|output_blocks|out|time_embed|label_emb)_\w+"
_CLIP = r"text_model\.encoder\.layers\.\d+\.[\w.]+"
_CLIP_FLAT = r"text_model_encoder_layers_\d+_\w+"
_ATTENTION = r"\.to_(q|k|v|out)\b"


def _names(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


_COMFY_UNET = (
    rf"(lora_unet|lycoris)_({_UNET_FLAT}|{_CODE_UNET_FLAT}){_ANY}",
    rf"diffusion_model\.{_CODE_UNET}{_ANY}",
    rf"(?!.*(?<!\.processor){_ATTENTION})(unet\.)?{_UNET}({_ANY}|_lora\.(down|up)\.weight)",
)
"""Of the attention, diffusers' names are known with ``processor.`` in them alone."""
_FORGE = {
    "stable_diffusion": _names(*_COMFY_UNET, rf"lora_te1?_{_CLIP_FLAT}{_ANY}", rf"text_encoder\.{_CLIP}{_ANY}"),
    "stable_diffusion_xl": _names(
        *_COMFY_UNET, rf"lora_te[12]?_{_CLIP_FLAT}{_ANY}", rf"text_encoder(_2)?\.{_CLIP}{_ANY}"
    ),
}
_COMFY = {
    family: _names(names.pattern, rf"text_encoders\.clip_[lg]\.transformer\.{_CLIP}{_ANY}")
    for family, names in _FORGE.items()
}

CLIENTS: dict[str, Client] = {
    client.name: client
    for client in (
        Client("ComfyUI", "0.3.64", _COMFY, _LYCORIS, (_leaves_out_other_tensors(),)),
        Client("Forge", "2025-06-26", _FORGE, _LYCORIS, (_leaves_out_other_tensors(limit=12),)),
        Client(
            "sd-scripts",
            "2026-02-16",
            {
                "stable_diffusion": _names(rf"lora_unet_{_UNET_FLAT}{_KOHYA}", rf"lora_te_{_CLIP_FLAT}{_KOHYA}"),
                "stable_diffusion_xl": _names(
                    rf"lora_unet_{_CODE_UNET_FLAT}{_KOHYA}", rf"lora_te[12]_{_CLIP_FLAT}{_KOHYA}"
                ),
            },
            _FACTORS,
            (_refuses_other_tensors(), _scalar_alpha),
        ),
        Client(
            "diffusers",
            "0.42.1",
            {
                "stable_diffusion": _names(
                    rf"lora_unet_{_UNET_FLAT}{_KOHYA}",
                    rf"lora_te_{_CLIP_FLAT}{_KOHYA}",
                    rf"unet\.{_UNET}({_PEFT}|{_OLD})",
                    rf"text_encoder\.{_CLIP}({_PEFT}|{_OLD})",
                ),
                "stable_diffusion_xl": _names(
                    rf"lora_unet_({_UNET_FLAT}|{_CODE_UNET_FLAT}){_KOHYA}",
                    rf"lora_te[12]_{_CLIP_FLAT}{_KOHYA}",
                    rf"unet\.{_UNET}({_PEFT}|{_OLD})",
                    rf"text_encoder(_2)?\.{_CLIP}({_PEFT}|{_OLD})",
                ),
            },
            _FACTORS | {"magnitude"},
            (_refuses_other_tensors(), _no_adapter_metadata, _one_alpha_a_component),
        ),
        Client(
            "InvokeAI",
            "2026-08-19",
            {
                "stable_diffusion": _names(rf"lora_unet_{_UNET_FLAT}{_KOHYA}", rf"lora_te_{_CLIP_FLAT}{_KOHYA}"),
                "stable_diffusion_xl": _names(
                    rf"lora_unet_({_UNET_FLAT}|{_CODE_UNET_FLAT}){_KOHYA}", rf"lora_te[12]_{_CLIP_FLAT}{_KOHYA}"
                ),
            },
            _LYCORIS,
            (_refuses_other_tensors(allowed="bundle_emb"), _one_type_a_layer),
        ),
        Client(
            "OpenVINO GenAI",
            "2026.4.1",
            {
                "stable_diffusion": _names(
                    rf"lora_unet_{_UNET_FLAT}({_KOHYA}|{_PEFT})", rf"lora_te_{_CLIP_FLAT}({_KOHYA}|{_PEFT})"
                ),
            },
            _FACTORS,
            (_one_type_a_layer, _ignores_alpha, _one_pixel_windows),
        ),
    )
}
"""Name to program."""


def readers(
    header: Header, family: str, alphas: Mapping[str, float] = MappingProxyType({})
) -> Mapping[str, Sequence[str]]:
    """Return program to what it would not read of a file, or read wrongly; a program without lines reads it whole.

    Args:
        header: Of the file.
        family: The file's family, by the name of its layer table.
        alphas: Module to its alpha; a module that is left out has its rank for alpha.
    """
    answers = {name: client.takes(header, family, alphas) for name, client in CLIENTS.items()}
    return {name: lines for name, lines in answers.items() if lines is not None}
