"""The facts that a layer table is written from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

from torch import nn

from orthoplex.concepts.layer_table import NameKind, OriginalModule, Role, Sees

Published = Mapping[str, Mapping[str, nn.Module] | str]
"""Version to its changed components on the meta device, or to the version that it equals."""


def _no_originals(_layers: Iterable[str]) -> dict[str, OriginalModule]:
    return {}


@final
@dataclass(frozen=True)
class Names:
    """How other programs call the layers of a family.

    Attributes:
        encoder_tags: See ``LayerTable``.
        kohya_names: See ``LayerTable``.
        originals: Returns the original modules of the layers of a version.
    """

    encoder_tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    kohya_names: NameKind = "diffusers"
    originals: Callable[[Iterable[str]], Mapping[str, OriginalModule]] = _no_originals


@final
@dataclass(frozen=True)
class Layout:
    """The layers of a family of bases, and what they are called.

    Attributes:
        components: Component to its role.
        rules: Pattern of layer names to what such a layer sees; the first that fits counts.
        published: Builds the networks of every version.
        names: How other programs call the layers.
    """

    components: Mapping[str, Role]
    rules: Mapping[str, Sees]
    published: Callable[[], Published]
    names: Names = Names()


@final
@dataclass(frozen=True)
class Spelling:
    """The original names of a transformer's modules, as patterns.

    Attributes:
        component: The denoiser's component.
        modules: Original module to its layer, or to the layers that lie one below the other in it; ``{}`` is the number
            of a block.
        swapped_halves: Those of the original modules whose halves are exchanged.
    """

    component: str
    modules: Mapping[str, str | tuple[str, ...]]
    swapped_halves: frozenset[str] = frozenset()

    def originals(self, layers: Iterable[str]) -> dict[str, OriginalModule]:
        """Return the original modules of a version's layers; of a pattern, those whose first layer there is."""
        prefix = f"{self.component}."
        paths = [layer.removeprefix(prefix) for layer in layers if layer.startswith(prefix)]
        originals: dict[str, OriginalModule] = {}
        for name, written in self.modules.items():
            parts = (written,) if isinstance(written, str) else written
            for number in _numbers(parts[0], paths):
                members = tuple(prefix + part.replace("{}", number) for part in parts)
                originals[name.replace("{}", number)] = OriginalModule(members, name in self.swapped_halves)
        return originals


def same_names(layers: Iterable[str]) -> dict[str, OriginalModule]:
    """Return the original modules of a denoiser whose code has diffusers' names."""
    return {layer.partition(".")[2]: OriginalModule((layer,)) for layer in layers}


def _numbers(pattern: str, paths: Iterable[str]) -> Iterator[str]:
    """Yield the block numbers of the paths that a pattern fits; one empty number for a path that equals it."""
    start, marker, end = pattern.partition("{}")
    for path in paths:
        number = path[len(start) : len(path) - len(end)]
        if path == (f"{start}{number}{end}" if marker else pattern) and (number.isdecimal() or not marker):
            yield number if marker else ""
