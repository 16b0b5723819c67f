"""Names of layers in our own files: those of kohya's programs, which most programs read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from orthoplex.concepts.exchange.styles import STYLES
from orthoplex.concepts.layer_table import component_of, components_of, layer_table
from orthoplex.errors import ConfigurationError

_TEXT_ENCODER = "text_encoder"
_STYLE = "kohya"


def flat_names(layers: Iterable[str], version: str) -> dict[str, str]:
    """Return layers with their flat names, such as ``lora_unet_mid_block_attentions_0_proj_in``.

    They are those of the style ``kohya``. Layers that it does not name one by one, and all layers of unknown versions,
    have the component and the path: text encoders are ``lora_te_`` where a base has one, and ``lora_te1_``,
    ``lora_te2_``, … where it has several.

    Args:
        layers: Component and path of each.
        version: Version of the base's family, as ``BaseIdentity.family`` has it; of an unknown one, the layers tell
            how many text encoders it has.

    Raises:
        ConfigurationError: If two layers have one flat name.
    """
    names = sorted(layers)
    given = {component_of(name) for name in names}
    components = given if layer_table(version) is None else {*components_of(version)}
    has_several = any(name.startswith(_TEXT_ENCODER) and name != _TEXT_ENCODER for name in components)
    known = _known_names(version)
    flat = {name: known.get(name) or _generic(name, has_several) for name in names}
    owners: dict[str, str] = {}
    for name, short in flat.items():
        if short in owners:
            raise ConfigurationError(
                f"layers '{owners[short]}' and '{name}' have the same flat name '{short}', allowed are different ones"
            )
        owners[short] = name
    return flat


@cache
def _known_names(version: str) -> Mapping[str, str]:
    """The names of a version's layers in the style; the first name counts.

    None for the layers of a component with modules that are several layers, or have swapped halves: such a component's
    layers all have their paths, so that no file has two namings.
    """
    table = layer_table(version)
    if table is None:
        return {}
    pairs = list(STYLES[_STYLE].written_names(table, version))
    fused = {
        component_of(layer)
        for _, module in pairs
        for layer in module.layers
        if len(module.layers) > 1 or module.swapped_halves
    }
    named: dict[str, str] = {}
    for name, module in pairs:
        if component_of(module.layers[0]) not in fused:
            named.setdefault(module.layers[0], name)
    return named


def _generic(layer: str, has_several: bool) -> str:
    """The component and the path."""
    component, _, path = layer.partition(".")
    flat = path.replace(".", "_")
    if not component.startswith(_TEXT_ENCODER):
        return f"lora_{component}_{flat}"
    number = component.removeprefix(_TEXT_ENCODER).removeprefix("_") or "1"
    return f"lora_te{number}_{flat}" if has_several else f"lora_te_{flat}"
