"""Layers whose weights cannot be changed in place, and why: each is refused by name before anything is changed.

The types of modules and weights are asked, not the libraries that made them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from orthoplex.errors import BaseModelError
from orthoplex.models.layer_names import component_name

_FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}
"""Fused projections of diffusers' attention to those that they replace, which stay in the module unused."""
_GROUP_OFFLOADING = "group_offloading"


def named_modules(components: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return every module of every component by its layer name, and every component itself by its own."""
    return {
        component_name(component, path) if path else component: module
        for component, root in components.items()
        for path, module in root.named_modules(remove_duplicate=False)
    }


def linear_layers(shapes: Mapping[str, tuple[int, int]], modules: Mapping[str, nn.Module]) -> dict[str, nn.Linear]:
    """Return linear layers by name, each of which is used by the network and has the shape asked for.

    Args:
        shapes: Layer name to the shape ``(out, in)`` of its weight.
        modules: See ``named_modules``.

    Raises:
        BaseModelError: If a layer is missing, is wrapped, compiled or unused, or has another shape.
    """
    layers = {name: _linear(name, modules) for name in shapes}
    for name, shape in shapes.items():
        _check_shape(name, shape, layers[name])
    return layers


def check_projections(name: str, attention: nn.Module, projections: Sequence[str]) -> None:
    """Refuse an attention module that computes without some of its projections, because they are fused.

    Args:
        name: The module's name.
        attention: The module.
        projections: The names of its projections.

    Raises:
        BaseModelError: Names the projection, the one that computes in its place, and the cure.
    """
    for projection in projections:
        fused = _fused_projection(attention, projection)
        if fused is not None:
            raise BaseModelError(
                f"layer '{name}.{projection}' is unused, because '{name}.{fused}' computes in its place "
                "(fuse_qkv_projections); call pipeline.unfuse_qkv_projections() first"
            )


def check_foldable(shapes: Mapping[str, tuple[int, int]], modules: Mapping[str, nn.Module]) -> dict[str, nn.Linear]:
    """Return linear layers by name whose weights are plain numbers that can be replaced.

    Args:
        shapes: Layer name to the shape ``(out, in)`` of its change.
        modules: See ``named_modules``.

    Raises:
        BaseModelError: See ``linear_layers``; or if a weight is quantised, computed, offloaded, stored as float8, or
            shared with another layer. Names the layer, what it is, and the cure.
    """
    layers = {name: _linear(name, modules) for name in shapes}
    for name, layer in layers.items():
        _check_weight(name, layer)
        _check_shape(name, shapes[name], layer)
    _check_offloading(shapes, modules)
    _check_shared(layers, modules)
    return layers


def _linear(name: str, modules: Mapping[str, nn.Module]) -> nn.Linear:
    """The linear layer of a name, if it is one and the network uses it."""
    module = modules.get(name)
    if module is None:
        compiled = next((outer for outer in _outer_names(name) if _has_child(modules.get(outer), "_orig_mod")), None)
        if compiled is not None:
            raise _refusal(
                name,
                f"'{compiled}' is compiled by torch.compile, which hides its layers",
                f"compile in place instead, by {compiled}.compile()",
            )
        count = sum(isinstance(module, nn.Linear) for module in modules.values())
        raise BaseModelError(f"layer '{name}' is not in the base, which has {count} linear layers")
    if _has_child(module, "base_layer"):
        raise _refusal(name, f"it is wrapped by {_type_name(module)}", "unload the LoRA that wraps it first")
    if not isinstance(module, nn.Linear):
        raise _refusal(name, f"it is a {_type_name(module)}", "allowed are linear layers")
    outer, _, part = name.rpartition(".")
    fused = _fused_projection(modules.get(outer), part)
    if fused is not None:
        raise _refusal(
            name,
            f"it is unused, because '{outer}.{fused}' computes in its place (fuse_qkv_projections)",
            "call pipeline.unfuse_qkv_projections() first",
        )
    return module


def _check_weight(name: str, layer: nn.Linear) -> None:
    """Refuse a weight that is not a plain parameter of plain numbers in memory."""
    unquantised = "load the model without quantisation"
    if type(layer).forward is not nn.Linear.forward:
        raise _refusal(name, f"it is a {_type_name(layer)}, which computes unlike a linear layer", unquantised)
    weight = layer._parameters.get("weight")
    if weight is None:
        raise _refusal(name, "its weight is computed from other parameters", "remove the parametrisation first")
    if type(weight) is not nn.Parameter or type(weight.data) is not Tensor:
        raise _refusal(name, f"its weight is a {_type_name(weight)}, not a plain tensor", unquantised)
    if weight.is_meta:
        raise _refusal(
            name, "its weight is offloaded (on the meta device)", "load the model without sequential offloading"
        )
    if not weight.dtype.is_floating_point:
        raise _refusal(name, f"its weight is stored as {weight.dtype}", unquantised)
    if weight.dtype.itemsize < torch.float16.itemsize:
        raise _refusal(
            name,
            f"its weight is stored as {weight.dtype}, which rounds a small change away",
            "load the model as float16, bfloat16 or float32, without layer-wise casting",
        )


def _check_shape(name: str, shape: tuple[int, int], layer: nn.Linear) -> None:
    weight_shape = tuple(layer.weight.shape)
    if shape != weight_shape:
        raise BaseModelError(f"layer '{name}': the change has shape {shape}, the base's weight has {weight_shape}")


def _check_offloading(names: Mapping[str, object], modules: Mapping[str, nn.Module]) -> None:
    """Refuse layers in blocks that diffusers' group offloading brings back from copies of its own."""
    outer = {outer for name in names for outer in (name, *_outer_names(name))}
    for name in sorted(outer & modules.keys()):
        registry = vars(modules[name]).get("_diffusers_hook")
        if registry is not None and registry.get_hook(_GROUP_OFFLOADING) is not None:
            layer = next(layer for layer in names if f"{layer}.".startswith(f"{name}."))
            raise _refusal(
                layer, f"'{name}' is under group offloading, which has copies of its weights", "load it without"
            )


def _check_shared(layers: Mapping[str, nn.Linear], modules: Mapping[str, nn.Module]) -> None:
    """Refuse a weight that two modules share: a change of one would be a change of the other."""
    users: dict[int, dict[int, str]] = defaultdict(dict)
    for name, module in modules.items():
        weight = module._parameters.get("weight")
        if weight is not None:
            users[id(weight)].setdefault(id(module), name)
    for name, layer in layers.items():
        others = [other for key, other in users[id(layer.weight)].items() if key != id(layer)]
        aliases = [other for other in layers if other != name and layers[other] is layer]
        if others or aliases:
            raise _refusal(
                name, f"it shares its weight with '{(others + aliases)[0]}'", "give each a weight of its own"
            )


def _fused_projection(attention: nn.Module | None, part: str) -> str | None:
    """The fused projection of an attention module that computes in the place of one of its parts; None without."""
    if attention is None or not getattr(attention, "fused_projections", False):
        return None
    processor = getattr(attention, "processor", None)
    # an unfused attention module of a U-Net keeps flag and projection; only its processor tells
    if type(attention).__name__ == "Attention" and "Fused" not in type(processor).__name__:
        return None
    return next((fused for fused, parts in _FUSED.items() if part in parts and _has_child(attention, fused)), None)


def _outer_names(name: str) -> Iterator[str]:
    """The names of all modules around a layer, the innermost first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _has_child(module: nn.Module | None, child: str) -> bool:
    return module is not None and child in module._modules


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _refusal(name: str, what: str, cure: str) -> BaseModelError:
    return BaseModelError(f"layer '{name}' cannot be changed in place: {what}; {cure}")
