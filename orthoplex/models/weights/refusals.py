"""Weights that cannot be changed in place, and why: each is refused by name before anything is changed.

A layer's name is that of its weight; its bias is ``<layer>.bias``. The types of modules and weights are asked, not the
libraries that made them.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from orthoplex.errors import BaseModelError
from orthoplex.models.layer_names import component_name, is_text_encoder
from orthoplex.models.weights.quantised import quantisation_of, weight_shape

_FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}
"""Fused projections of diffusers' attention to those that they replace, which stay in the module unused."""
_GROUP_OFFLOADING = "group_offloading"
_COMPUTING = {
    nn.Linear: "a linear layer",
    nn.Conv1d: "a convolution",
    nn.Conv2d: "a convolution",
    nn.Conv3d: "a convolution",
}
"""Layers whose plain weights can be changed -> what they compute like; norms can, too."""


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
        _check_shape(name, shape, weight_shape(layers[name]))
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


def check_foldable(shapes: Mapping[str, tuple[int, int]], modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return parameters by name, each of plain numbers that can be replaced.

    They are weights of linear layers, convolutions and norms, and, by the name ``<layer>.bias``, biases.

    Args:
        shapes: Name to the shape ``(out, in)`` of its change; see ``matrix_shape``.
        modules: See ``named_modules``.

    Raises:
        BaseModelError: See ``linear_layers``; or if a weight is quantised, computed, offloaded, stored as float8, or
            shared with another layer. Names the layer, what it is, and the cure.
    """
    places = {name: parameter_place(name, modules) for name in shapes}
    parameters = {}
    for name, (module, part) in places.items():
        parameters[name] = _checked_parameter(name, module, part)
        _check_shape(name, shapes[name], parameters[name].shape)
    _check_offloading(shapes, modules)
    _check_shared(parameters, modules)
    return parameters


def check_hookable(shapes: Mapping[str, tuple[int, int]], modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the modules beside which changes can be computed, by the name of their change.

    They are linear layers and convolutions, of whatever numbers their weights are made.

    Args:
        shapes: Name to the shape ``(out, in)`` of its change; see ``matrix_shape``.
        modules: See ``named_modules``.

    Raises:
        BaseModelError: If a layer is missing, is wrapped, compiled or unused, is of another kind or shape, or stands
            in several places of the network. Names the layer, what it is, and the cure.
    """
    chosen = {}
    places = {name: parameter_place(name, modules) for name in shapes}
    uses = Counter(id(module) for module in modules.values())
    for name, (module, part) in places.items():
        if not isinstance(module, tuple(_COMPUTING)):
            raise BaseModelError(
                f"layer '{name}' cannot be changed unmerged: it is a {_type_name(module)}; allowed are linear layers, "
                "convolutions and their biases; fold the change in instead"
            )
        _check_called(name, module)
        if uses[id(module)] > 1:
            raise BaseModelError(
                f"layer '{name}' cannot be changed unmerged: it stands in {uses[id(module)]} places of the network; "
                "give each a layer of its own"
            )
        shape = weight_shape(module)
        _check_shape(name, shapes[name], shape[:1] if part == "bias" else shape)
        chosen[name] = module
    return chosen


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return the shape that changes of a parameter have: ``(out, in · height · width)``, or ``(n, 1)`` for n numbers.

    Args:
        shape: The shape of the parameter.
    """
    return shape[0], math.prod(shape[1:])


def matrix_shapes(components: Mapping[str, nn.Module]) -> dict[str, tuple[int, int]]:
    """Return the name of every weight and bias that has one, to the shape of its changes.

    Args:
        components: Component to module.
    """
    shapes = {}
    for name, module in named_modules(components).items():
        for part, values in module._parameters.items():
            if values is not None and part in ("weight", "bias"):
                shape = weight_shape(module) if part == "weight" else values.shape
                shapes[name if part == "weight" else f"{name}.bias"] = matrix_shape(shape)
    return shapes


def parameter_place(name: str, modules: Mapping[str, nn.Module]) -> tuple[nn.Module, str]:
    """Return the module of a name, and which of its parameters is meant: ``weight`` or ``bias``.

    Args:
        name: A layer's name, or ``<layer>.bias``.
        modules: See ``named_modules``.

    Raises:
        BaseModelError: If the network has no such layer or bias, or does not use it.
    """
    for known in _spellings(name):
        if known in modules:
            return _used(known, modules), "weight"
        outer, _, part = known.rpartition(".")
        if part == "bias" and outer in modules:
            module = _used(outer, modules)
            if "bias" in module._parameters and module._parameters["bias"] is None:
                raise BaseModelError(f"layer '{name}' is not in the base: '{outer}' has no bias")
            return module, part
    raise _missing(name, modules)


def _spellings(name: str) -> Iterator[str]:
    """A name, and for a text encoder's the same with ``text_model.``, which some programs leave out, or without."""
    yield name
    component, _, path = name.partition(".")
    if is_text_encoder(component):
        inner = path.removeprefix("text_model.")
        yield f"{component}.{inner}" if inner != path else f"{component}.text_model.{path}"


def _missing(name: str, modules: Mapping[str, nn.Module]) -> BaseModelError:
    compiled = next((outer for outer in _outer_names(name) if _has_child(modules.get(outer), "_orig_mod")), None)
    if compiled is not None:
        return _refusal(
            name,
            f"'{compiled}' is compiled by torch.compile, which hides its layers",
            f"compile in place instead, by {compiled}.compile()",
        )
    count = sum(isinstance(module, nn.Linear) for module in modules.values())
    return BaseModelError(f"layer '{name}' is not in the base, which has {count} linear layers")


def _used(name: str, modules: Mapping[str, nn.Module]) -> nn.Module:
    """The module of a name, if nothing wraps it or computes in its place."""
    module = modules[name]
    if _has_child(module, "base_layer"):
        raise _refusal(name, f"it is wrapped by {_type_name(module)}", "unload the LoRA that wraps it first")
    outer, _, part = name.rpartition(".")
    fused = _fused_projection(modules.get(outer), part)
    if fused is not None:
        raise _refusal(
            name,
            f"it is unused, because '{outer}.{fused}' computes in its place (fuse_qkv_projections)",
            "call pipeline.unfuse_qkv_projections() first",
        )
    return module


def _linear(name: str, modules: Mapping[str, nn.Module]) -> nn.Linear:
    """The linear layer of a name, if it is one and the network uses it."""
    if name not in modules:
        raise _missing(name, modules)
    module = _used(name, modules)
    if not isinstance(module, nn.Linear):
        raise _refusal(name, f"it is a {_type_name(module)}", "allowed are linear layers")
    _check_called(name, module)
    return module


def _check_called(name: str, module: nn.Module) -> None:
    """Refuse the layer of torch's own attention, which reads its weight and never calls it."""
    if isinstance(module, NonDynamicallyQuantizableLinear):
        raise BaseModelError(
            f"layer '{name}' cannot be changed unmerged nor trained: torch.nn.MultiheadAttention reads its weight and "
            "never calls it; fold the change in instead"
        )


def _is_norm(module: nn.Module) -> bool:
    """True for a module with nothing but a weight, and perhaps a bias, of one dimension, as norms have."""
    own = module._parameters
    return (
        own.keys() <= {"weight", "bias"} and all(item is None or item.ndim == 1 for item in own.values()) and own != {}
    )


def _checked_parameter(name: str, module: nn.Module, part: str) -> nn.Parameter:
    """Refuse what is not a plain parameter of plain numbers in memory."""
    unquantised = "load the model without quantisation"
    quantised = quantisation_of(module)
    if quantised is not None:
        raise _refusal(
            name,
            f"it is quantised by {quantised}, whose rounding would lose small changes",
            "put the change in unmerged (unmerged=True), or load the model without quantisation",
        )
    kind = next((kind for kind in _COMPUTING if isinstance(module, kind)), None)
    if kind is None and not _is_norm(module):
        raise _refusal(name, f"it is a {_type_name(module)}", "allowed are linear layers, convolutions and norms")
    if kind is not None and type(module).forward is not kind.forward:
        raise _refusal(name, f"it is a {_type_name(module)}, which computes unlike {_COMPUTING[kind]}", unquantised)
    values = module._parameters.get(part)
    if values is None:
        raise _refusal(name, f"its {part} is computed from other parameters", "remove the parametrisation first")
    if type(values) is not nn.Parameter or type(values.data) is not Tensor:
        raise _refusal(name, f"its {part} is a {_type_name(values)}, not a plain tensor", unquantised)
    if values.is_meta:
        raise _refusal(
            name, f"its {part} is offloaded (on the meta device)", "load the model without sequential offloading"
        )
    if not values.dtype.is_floating_point:
        raise _refusal(name, f"its {part} is stored as {values.dtype}", unquantised)
    if values.dtype.itemsize < torch.float16.itemsize:
        raise _refusal(
            name,
            f"its {part} is stored as {values.dtype}, which rounds a small change away",
            "put the change in unmerged (unmerged=True), or load the model without layer-wise casting, as float16, "
            "bfloat16 or float32",
        )
    return values


def _check_shape(name: str, shape: tuple[int, int], own: Sequence[int]) -> None:
    if shape != matrix_shape(own):
        part = "bias" if name.endswith(".bias") else "weight"
        raise BaseModelError(f"layer '{name}': the change has shape {shape}, the base's {part} has {tuple(own)}")


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


def _check_shared(parameters: Mapping[str, nn.Parameter], modules: Mapping[str, nn.Module]) -> None:
    """Refuse a weight that two modules share: a change of one would be a change of the other."""
    users: dict[int, dict[tuple[int, str], str]] = defaultdict(dict)
    for name, module in modules.items():
        for part, values in module._parameters.items():
            if values is not None:
                users[id(values)].setdefault((id(module), part), name)
    names: dict[int, list[str]] = defaultdict(list)
    for name, values in parameters.items():
        names[id(values)].append(name)
    for name, values in parameters.items():
        shared = list(users[id(values)].values())
        others = [other for other in (*shared[1:], *shared[:1]) if other not in (name, name.removesuffix(".bias"))]
        aliases = [other for other in names[id(values)] if other != name]
        if len(shared) > 1 or aliases:
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
