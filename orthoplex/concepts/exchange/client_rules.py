"""What other programs read of a LoRA file: measured or read in their code, and asked of a header without torch.

``docs/clients.md`` has the versions, the dates and how each rule was learnt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from orthoplex.concepts.exchange import client_names as names
from orthoplex.concepts.exchange.lora_keys import LoraKeys
from orthoplex.files import Header

Rule = Callable[[LoraKeys], Iterator[str]]
"""What is wrong with a file for a program, in words that follow its name; nothing where nothing is."""


@final
@dataclass(frozen=True)
class FamilyRules:
    """What a program reads of the LoRA files of one family.

    Attributes:
        modules: The names of modules that it knows, with the endings of their factors.
        parts: Parts of a change that it reads, as ``LoraKeys`` names them.
        rules: What else it asks of a file.
        is_strict: True if one module that it does not know is enough to refuse the whole file.
    """

    modules: re.Pattern[str]
    parts: frozenset[str]
    rules: tuple[Rule, ...] = ()
    is_strict: bool = False


@final
@dataclass(frozen=True)
class Client:
    """A program that reads LoRA files.

    Attributes:
        name: As people know it.
        version: What was measured, or the date of the code that was read.
        families: Family, by the name of its layer table, to what the program reads of its files.
    """

    name: str
    version: str
    families: Mapping[str, FamilyRules]

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
        known = self.families.get(family)
        if known is None:
            return None
        keys = LoraKeys.of(header, alphas)
        return [*_unread(keys, known), *(line for rule in known.rules for line in rule(keys))]


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


def _unread(keys: LoraKeys, known: FamilyRules) -> Iterator[str]:
    foreign = {module: None for module in keys.modules if not any(map(known.modules.fullmatch, _spelled(keys, module)))}
    first = next(iter(foreign), None)
    if len(foreign) == len(keys.modules):
        yield "reads none of its layers" + (f", such as {first}" if foreign else "")
        return
    if foreign:
        verb = "refuses the file for" if known.is_strict else "does not read"
        yield f"{verb} {len(foreign)} of {len(keys.modules)} layers, such as {first}"
    unread = {
        part: module
        for module in reversed(list(keys.modules))
        for part in keys.modules[module]
        if part not in known.parts and module not in foreign
    }
    for part, module in sorted(unread.items()):
        yield f"does not read {_PART_NAMES[part]}, as in layer {module}"


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


def _no_alpha_beside(prefixes: tuple[str, ...]) -> Rule:
    """An alpha beside these names is no LoRA to the program, which refuses the whole file."""

    def rule(keys: LoraKeys) -> Iterator[str]:
        modules = [module for module, parts in keys.modules.items() if "alpha" in parts and module.startswith(prefixes)]
        if modules:
            yield f"refuses the file for alpha beside such names: {_example(modules)}"

    return rule


def _ignores_alpha(keys: LoraKeys) -> Iterator[str]:
    others = [module for module in keys.alphas if keys.alphas[module] != keys.rank(module)]
    if others:
        first = others[0]
        yield f"ignores alpha: {keys.alphas[first]:g} with rank {keys.rank(first)} in {_example(others)}"


def _one_pixel_windows(keys: LoraKeys) -> Iterator[str]:
    if wide := keys.windows():
        yield f"refuses convolutions wider than one pixel: {_example(wide)}"


_FACTORS = frozenset({"down", "up", "alpha"})
_LYCORIS = _FACTORS | {"mid", "LoHa", "LoKr", "difference"}
_TRANSFORMER = ("transformer.", "text_conditioner.")
_CODE = ("diffusion_model.", "base_model.model.")


def _same(modules: names.Names, parts: frozenset[str], *rules: Rule, is_strict: bool = False) -> dict[str, FamilyRules]:
    """The same parts and rules in every family."""
    return {family: FamilyRules(pattern, parts, rules, is_strict) for family, pattern in modules.items()}


def _diffusers() -> Iterator[tuple[str, FamilyRules]]:
    """Every family has a converter of its own; only the older two read DoRA."""
    parts = {
        "stable_diffusion": _FACTORS | {"magnitude"},
        "stable_diffusion_xl": _FACTORS | {"magnitude"},
        "flux2": _FACTORS | {"LoKr"},
        "z_image": _FACTORS | {"LoKr"},
    }
    rules: dict[str, tuple[Rule, ...]] = {
        "stable_diffusion": (_one_alpha_a_component,),
        "stable_diffusion_xl": (_one_alpha_a_component,),
        "flux2": (_no_alpha_beside((*_TRANSFORMER, *_CODE)),),
        "krea2": (_no_alpha_beside((*_TRANSFORMER, *_CODE)),),
        "anima": (_no_alpha_beside((*_TRANSFORMER, *_CODE)),),
        "ideogram4": (_no_alpha_beside(_TRANSFORMER),),
    }
    for family, pattern in names.DIFFUSERS.items():
        own = (_refuses_other_tensors(), _no_adapter_metadata, *rules.get(family, ()))
        is_strict = family in ("chroma", "krea2", "ideogram4")
        yield family, FamilyRules(pattern, parts.get(family, _FACTORS), own, is_strict)


CLIENTS: dict[str, Client] = {
    client.name: client
    for client in (
        Client("ComfyUI", "0.3.64", _same(names.COMFY, _LYCORIS | {"magnitude"}, _leaves_out_other_tensors())),
        Client(
            "Forge", "2025-06-26", _same(names.FORGE, _LYCORIS | {"magnitude"}, _leaves_out_other_tensors(limit=12))
        ),
        Client("sd-scripts", "2026-02-16", _same(names.SD_SCRIPTS, _FACTORS, _refuses_other_tensors(), _scalar_alpha)),
        Client("diffusers", "0.42.1", dict(_diffusers())),
        Client(
            "InvokeAI",
            "2026-08-19",
            _same(
                names.INVOKEAI,
                _LYCORIS | {"magnitude"},
                _refuses_other_tensors(allowed="bundle_emb"),
                _one_type_a_layer,
                is_strict=True,
            ),
        ),
        Client(
            "OpenVINO GenAI",
            "2026.4.1",
            _same(names.OPENVINO, _FACTORS, _one_type_a_layer, _ignores_alpha, _one_pixel_windows),
        ),
        Client(
            "stable-diffusion.cpp",
            "cyllama 0.2.18",
            _same(names.STABLE_DIFFUSION_CPP, _LYCORIS, _leaves_out_other_tensors()),
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


def readers_in_words(answers: Mapping[str, Sequence[str]]) -> str:
    """Return one line for people: who reads a file whole, and who does not, with the reasons; empty without programs.

    Args:
        answers: Of ``readers``.
    """
    whole = [name for name, lines in answers.items() if not lines]
    others = [f"{name} ({'; '.join(lines)})" for name, lines in answers.items() if lines]
    parts = [", ".join(whole) or "none that is known", *([f"not by {', '.join(others)}"] if others else [])]
    return "; ".join(parts) if answers else ""
