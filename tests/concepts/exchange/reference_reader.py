"""A second reader of LoRA files, written from the rules of the formats alone, dense and slow; for comparison.

It knows the names in layer tables and nothing of our reader. What it does not know it says, so that a file that it
refuses and our reader takes is a loss, or a rule that one of both does not have.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from orthoplex.concepts.layer_table import layer_table

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
ENDINGS = {
    "down": r"\.lora_down\.weight|\.lora_A(?:\.[^.]+)?\.weight|\.lora_A",
    "up": r"\.lora_up\.weight|\.lora_B(?:\.[^.]+)?\.weight|\.lora_B",
    "up_bias": r"\.lora_B(?:\.[^.]+)?\.bias",
    "mid": r"\.lora_mid\.weight",
    "alpha": r"\.alpha",
    "scale": r"\.scale",
    "diff": r"\.diff|\.w_norm",
    "diff_b": r"\.diff_b|\.b_norm",
    **{f"w{i}{side}": rf"\.hada_w{i}_{side}(?:\.[^.]+)?" for i in (1, 2) for side in "ab"},
    **{f"k{name}": rf"\.lokr_w{name}(?:\.[^.]+)?" for name in ("1", "1_a", "1_b", "2", "2_a", "2_b")},
}
KEY = re.compile("(.+?)(?:" + "|".join(f"(?P<{part}>{ending})" for part, ending in ENDINGS.items()) + ")")
WORDS = {"", "lora_down", "lora_up", "lora_A", "lora_B", "lora_mid", "weight", "bias", "alpha", "scale"}
WORDS |= {"diff", "w_norm", "diff_b", "b_norm"}
HADAMARD = ("w1a", "w1b", "w2a", "w2b")


class DoesNotKnowError(Exception):
    """The reference has no rule for a file."""


def reference(path: Path, version: str | None) -> dict[str, Tensor]:
    """Parameter to its change, float64, of two dimensions (one for biases); embeddings under their keys.

    Args:
        path: The file.
        version: The version whose names are taken; None takes modules as they are named.
    """
    tensors, metadata = _file(path)
    modules: dict[str, dict[str, Tensor]] = {}
    adapters: dict[str, list[str]] = {}
    changes: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key.startswith("bundle_emb."):
            changes[key] = tensor.double()
            continue
        parts = KEY.fullmatch(re.sub(r"^(base_model\.model\.)+", "", key))
        if parts is None or parts.lastgroup is None:
            raise DoesNotKnowError(f"key {key}")
        own = modules.setdefault(parts[1], {})
        if parts.lastgroup in own:
            raise DoesNotKnowError(f"a second {key}")
        own[parts.lastgroup] = tensor
        adapter = [word for word in parts[parts.lastgroup].split(".") if word not in WORDS and not word[4:6] == "_w"]
        if parts.lastgroup not in ("alpha", "scale", "mid", "diff", "diff_b"):
            if adapters.setdefault(parts[1], adapter) != adapter:
                raise DoesNotKnowError("two adapters")
    settings = _settings(metadata)
    for module, parts in modules.items():
        layers, is_swapped = ([module], False) if version is None else _names(version).get(module, ([], False))
        if not layers:
            layers = _verbatim(module, parts, version)
        for parameter, change in _changes(module, parts, settings, layers):
            for name, rows in _split(layers, parameter, change, version, is_swapped):
                if name in changes:
                    raise DoesNotKnowError(f"two changes of {name}")
                changes[name] = rows
    return changes


def _verbatim(module: str, parts: Mapping[str, Tensor], version: str | None) -> list[str]:
    """A norm has no name in a table; in our own names it is taken as it stands."""
    table = layer_table(version or "")
    if table is None or module.partition(".")[0] not in table.components or not parts.keys() <= {"diff", "diff_b"}:
        raise DoesNotKnowError(f"module {module}")
    return [module]


def _file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:
        raise DoesNotKnowError(f"damaged: {error}") from error


def _settings(metadata: Mapping[str, str]) -> dict[str, object]:
    try:
        values = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError) as error:
        raise DoesNotKnowError("settings") from error
    if not isinstance(values, dict):
        raise DoesNotKnowError("settings")
    return values


@cache
def _names(version: str) -> dict[str, tuple[list[str], bool]]:
    """Every name of a module to its layers, and whether its halves are exchanged."""
    table = layer_table(version)
    assert table is not None
    names: dict[str, tuple[list[str], bool]] = {}
    denoiser = next(component for component, role in table.components.items() if role == "denoiser")
    paths = {}
    for layer in table.weights[version]:
        component, _, path = layer.partition(".")
        names[layer] = ([layer], False)
        if component == denoiser:
            paths[path] = ([layer], False)
    originals = {
        name: ([*module.layers], module.swapped_halves) for name, module in table.original_modules(version).items()
    }
    for path, module in (*paths.items(), *originals.items()):
        for name in (path, f"diffusion_model.{path}"):
            names[name] = module if path in originals else names.get(name, module)
        for prefix in ("lora_unet_", "lora_transformer_", "lycoris_"):
            names.setdefault(prefix + path.replace(".", "_"), module)
    encoders = [layer.partition(".") for layer in table.weights[version] if not layer.startswith(f"{denoiser}.")]
    counts = Counter(path for _, _, path in encoders)
    for component, _, path in encoders:
        tags, module = table.encoder_tags.get(component, {}), ([f"{component}.{path}"], False)
        for tag in (tags["kohya"],) if "kohya" in tags else ():
            for each in ("te", "te1", "te2", "te3", tag) if counts[path] == 1 else (tag,):
                names[f"lora_{each}_{path.replace('.', '_')}"] = module
        if "comfy" in tags:
            names[f"text_encoders.{tags['comfy']}.transformer.{path}"] = module
        names[f"{component}.{path.removeprefix('text_model.')}"] = module
        if counts[path] == 1:
            names.setdefault(path, module)
            names.setdefault(path.removeprefix("text_model."), module)
    return names


def _changes(
    module: str, parts: Mapping[str, Tensor], settings: Mapping[str, object], layers: list[str]
) -> Iterator[tuple[str, Tensor]]:
    """Yield ``weight`` and ``bias`` with their changes."""
    for part, tensor in parts.items():
        if part not in ("alpha", "scale") and (tensor.dtype not in FLOATS or not tensor.double().isfinite().all()):
            raise DoesNotKnowError(f"values of {module}")
    values = {part: tensor.double() for part, tensor in parts.items()}
    has, bias = parts.keys() - {"alpha", "scale", "up_bias", "diff_b"}, parts.keys() & {"up_bias", "diff_b"}
    if len(bias) == 2:
        raise DoesNotKnowError(f"two biases of {module}")
    rank = None
    if has in ({"down", "up"}, {"down", "up", "mid"}):
        rank = values["down"].shape[0] if values["down"].ndim else None
        product = _low_rank(values)
    elif has == {*HADAMARD}:
        rank = values["w1a"].shape[1] if values["w1a"].ndim > 1 else None
        product = _times(values, "w1a", "w1b") * _same(_times(values, "w2a", "w2b"), _times(values, "w1a", "w1b"))
    elif has and all(part.startswith("k") for part in has):
        rank, product = _kronecker(values, has)
    elif has == {"diff"}:
        product = values["diff"]
    elif has:
        raise DoesNotKnowError(f"parts {sorted(has)}")
    else:
        product = None
    is_scaled = has & {"down", *HADAMARD, *(part for part in has if part.startswith("k"))}
    if not is_scaled and parts.keys() & {"alpha", "scale", "up_bias"}:
        raise DoesNotKnowError(f"alpha without factors of {module}")
    factor = _factor(module, values, rank, settings, layers) if is_scaled else 1.0
    if product is not None:
        yield "weight", product * factor
    if "up_bias" in values:
        yield "bias", values["up_bias"] * factor
    if "diff_b" in values:
        yield "bias", values["diff_b"]


def _low_rank(values: Mapping[str, Tensor]) -> Tensor:
    down, up = values["down"], values["up"]
    if min(down.ndim, up.ndim) < 2 or math.prod(up.shape[2:]) != 1 or 0 in (*down.shape, *up.shape):
        raise DoesNotKnowError("shapes")
    up = up.flatten(1)
    if "mid" in values:
        mid, down = values["mid"], down.flatten(1)
        if mid.ndim < 2 or up.shape[1] != mid.shape[0] or mid.shape[1] != down.shape[0]:
            raise DoesNotKnowError("shapes")
        return torch.einsum("om,mn...,ni->oi...", up, mid, down)
    if up.shape[1] != down.shape[0]:
        raise DoesNotKnowError("shapes")
    return (up @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def _times(values: Mapping[str, Tensor], first: str, second: str) -> Tensor:
    a, b = values[first], values[second]
    if min(a.ndim, b.ndim) < 2 or math.prod(a.shape[2:]) != 1 or a.shape[1] != b.shape[0] or 0 in (*a.shape, *b.shape):
        raise DoesNotKnowError("shapes")
    width = b.shape[1:] if math.prod(b.shape[2:]) != 1 else b.shape[1:2]
    return (a.flatten(1) @ b.flatten(1)).reshape(len(a), *width)


def _same(values: Tensor, other: Tensor) -> Tensor:
    if values.shape != other.shape:
        raise DoesNotKnowError("shapes")
    return values


def _kronecker(values: Mapping[str, Tensor], has: set[str]) -> tuple[int | None, Tensor]:
    sides, ranks, seen = [], set(), set()
    for i in "12":
        if f"k{i}" in has:
            side = values[f"k{i}"]
            if side.ndim < 2 or (i == "1" and math.prod(side.shape[2:]) != 1):
                raise DoesNotKnowError("shapes")
            seen.add(f"k{i}")
        else:
            if not {f"k{i}_a", f"k{i}_b"} <= has:
                raise DoesNotKnowError("parts")
            side = _times(values, f"k{i}_a", f"k{i}_b")
            ranks.add(values[f"k{i}_b"].shape[0])
            seen |= {f"k{i}_a", f"k{i}_b"}
        sides.append(side if i == "2" else side.flatten(1))
    if seen != has or len(ranks) > 1 or 0 in (*sides[0].shape, *sides[1].shape):
        raise DoesNotKnowError("parts")
    product = torch.einsum("oi,pj...->opij...", *sides).flatten(0, 1).flatten(1, 2)
    return (ranks.pop() if ranks else None), product


def _factor(
    module: str, values: Mapping[str, Tensor], rank: int | None, settings: Mapping[str, object], layers: list[str]
) -> float:
    """What stands before a product: alpha / rank, a scale, PEFT's settings, or 1; several must agree."""
    factors = []
    for part in ("alpha", "scale"):
        if part in values:
            number = values[part]
            if number.numel() != 1 or not number.isfinite().all() or float(number) <= 0:
                raise DoesNotKnowError(part)
            if part == "scale" or rank is not None:
                factors.append(float(number) / (rank or 1) if part == "alpha" else float(number))
    if rank is not None or "k1" in values:
        factors += _settings_factors(module, rank, settings, layers)
    if any(not math.isclose(factor, factors[0], rel_tol=1e-3) for factor in factors):
        raise DoesNotKnowError("factors that differ")
    return factors[0] if factors else 1.0


def _settings_factors(
    module: str, rank: int | None, settings: Mapping[str, object], layers: list[str]
) -> Iterator[float]:
    components = {key.partition(".")[0] for key in settings}
    for name in (module, *layers):
        component, _, path = name.partition(".")
        if component not in components:
            continue
        own = {key.partition(".")[2]: value for key, value in settings.items() if key.startswith(f"{component}.")}
        patterns, alpha = own.get("alpha_pattern") or {}, own.get("lora_alpha")
        if not isinstance(patterns, dict) or own.get("init_lora_weights") == "pissa":
            raise DoesNotKnowError("settings")
        alpha = next((value for key, value in patterns.items() if f".{path}".endswith(f".{key}")), alpha)
        if alpha is None:
            continue
        if type(alpha) not in (int, float) or not 0 < alpha < 1e30:
            raise DoesNotKnowError("lora_alpha")
        if rank is None and own.get("r") is None:
            continue
        rank = rank or own["r"]
        yield float(alpha) / (math.sqrt(rank) if own.get("use_rslora") else rank)


def _split(
    layers: list[str], parameter: str, change: Tensor, version: str | None, is_swapped: bool
) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters of the layers that are fused in a module, each with its own rows."""
    table = layer_table(version or "")
    shapes = {} if table is None else table.weights[version or ""]
    if not change.ndim or 0 in change.shape:
        raise DoesNotKnowError("shapes")
    flat = change if parameter == "bias" or change.ndim == 1 else change.flatten(1)
    if not {*layers} <= shapes.keys():
        yield f"{layers[0]}.{parameter}", flat
        return
    rows = sum(shapes[layer][0] for layer in layers)
    own, window = tuple(change.shape), shapes[layers[0]][1:]
    weights = [(rows, *window)]
    if window:
        weights += [(rows, math.prod(window)), (rows, window[0]) if math.prod(window[1:]) == 1 else ()]
    own = own[:2] if math.prod(own[2:]) == 1 and len(own) > 2 else own
    if own not in (weights if parameter == "weight" else [(rows,)]):
        raise DoesNotKnowError("shapes of the version")
    start = 0
    for layer in layers:
        part = flat[start : start + shapes[layer][0]]
        start += shapes[layer][0]
        half = len(part) // 2
        yield f"{layer}.{parameter}", torch.cat([part[half:], part[:half]]) if is_swapped else part
