"""Names of layers as the files of kohya's programs have them, which most programs read."""

from __future__ import annotations

from collections.abc import Iterable

from orthoplex.concepts.layer_table import component_of, components_of, layer_table
from orthoplex.errors import ConfigurationError

_TEXT_ENCODER = "text_encoder"


def flat_names(layers: Iterable[str], version: str) -> dict[str, str]:
    """Return layers with their flat names, such as ``lora_unet_mid_block_attentions_0_proj_in``.

    Text encoders are ``lora_te_`` where a base has one, and ``lora_te1_``, ``lora_te2_``, … where it has several.

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
    flat = {name: _prefix(name, has_several) + name.partition(".")[2].replace(".", "_") for name in names}
    owners: dict[str, str] = {}
    for name, short in flat.items():
        if short in owners:
            raise ConfigurationError(
                f"layers '{owners[short]}' and '{name}' have the same flat name '{short}', allowed are different ones"
            )
        owners[short] = name
    return flat


def _prefix(layer: str, has_several: bool) -> str:
    """The beginning of a flat name: the component."""
    component = component_of(layer)
    if not component.startswith(_TEXT_ENCODER):
        return f"lora_{component}_"
    number = component.removeprefix(_TEXT_ENCODER).removeprefix("_") or "1"
    return f"lora_te{number}_" if has_several else "lora_te_"
