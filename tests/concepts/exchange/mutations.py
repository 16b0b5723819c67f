"""Valid LoRA files of every style, family and payload, and mutations of them; all by a random generator."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from orthoplex.concepts.exchange import STYLES
from orthoplex.concepts.exchange.names import versions
from orthoplex.concepts.layer_table import OriginalModule, layer_tables

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in TYPES.items()}
HINT = "ss_base_model_version"


@dataclass
class Draft:
    """A file that is not written yet.

    Attributes:
        version: The version that it is of.
        style: Its style.
        tensors: Key to tensor.
        metadata: The header's text pairs; other values for a damaged one.
        header: Changes the header before it is written.
        content: Changes the bytes of the whole file.
    """

    version: str
    style: str
    tensors: dict[str, Tensor]
    metadata: dict[str, object] = field(default_factory=dict)
    header: Callable[[dict[str, object]], object] = lambda header: header
    content: Callable[[bytes], bytes] = lambda content: content

    def to_bytes(self) -> bytes:
        """Return the file."""
        header: dict[str, object] = {"__metadata__": self.metadata} if self.metadata else {}
        data = b""
        for key, tensor in self.tensors.items():
            raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            header[key] = {
                "dtype": NAMES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [len(data), len(data) + len(raw)],
            }
            data += raw
        changed = self.header(header)
        text = (changed if isinstance(changed, str) else json.dumps(changed)).encode("utf-8", "surrogatepass")
        text += b" " * (-len(text) % 8)
        return self.content(len(text).to_bytes(8, "little") + text + data)


@cache
def _written_names(family: str, version: str, style: str) -> tuple[tuple[str, OriginalModule], ...]:
    return tuple(STYLES[style].written_names(layer_tables()[family], version))


@cache
def _versions() -> list[tuple[str, str]]:
    return [*versions()]


def valid_file(chance: random.Random) -> Draft:
    """Return a valid file of any style, family, payload and type; three to five modules, the last one full or not."""
    family, version = chance.choice(_versions())
    style = chance.choice(list(STYLES))
    shapes = layer_tables()[family].versions[version]
    dtype = chance.choice([torch.float16, torch.bfloat16, torch.float32, torch.float32, torch.float8_e4m3fn])
    tensors: dict[str, Tensor] = {}
    for name, module in chance.sample(_written_names(family, version, style), chance.randint(3, 5)):
        first = shapes[module.layers[0]]
        shape = (sum(shapes[layer][0] for layer in module.layers), *first[1:])
        tensors |= _payload(chance, name, shape, style, dtype)
    return Draft(version, style, tensors, {"format": "pt", HINT: version})


def _random(chance: random.Random, dtype: torch.dtype, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(chance.getrandbits(32))
    return torch.randn(shape, generator=generator).to(dtype)


def _payload(
    chance: random.Random, name: str, shape: tuple[int, ...], style: str, dtype: torch.dtype
) -> dict[str, Tensor]:
    out, width, window = shape[0], shape[1], shape[2:]
    rank, columns = chance.randint(1, 4), math.prod(shape[1:])
    kind = chance.choice(["low-rank"] * 4 + ["hadamard", "kronecker", "difference", "core", "bias"])
    alpha = {} if chance.random() < 0.4 else {f"{name}.alpha": torch.tensor(float(chance.choice([1, 2, rank, 0.5, 3])))}
    if kind == "hadamard":
        sides = {"a": (out, rank), "b": (rank, columns)}
        return alpha | {
            f"{name}.hada_w{i}_{side}": _random(chance, dtype, *size) for i in (1, 2) for side, size in sides.items()
        }
    if kind == "kronecker":
        a, b = math.gcd(out, 4), math.gcd(width, 4)
        second = f"{name}.lokr_w2"
        tensors = {f"{name}.lokr_w1": _random(chance, dtype, a, b)}
        if chance.random() < 0.5:
            return alpha | tensors | {second: _random(chance, dtype, out // a, width // b, *window)}
        tensors[f"{second}_a"] = _random(chance, dtype, out // a, rank)
        tensors[f"{second}_b"] = _random(chance, dtype, rank, columns // b)
        return alpha | tensors
    if kind == "difference":
        bias = {f"{name}.diff_b": _random(chance, dtype, out)} if chance.random() < 0.5 else {}
        return {f"{name}.diff": _random(chance, dtype, *shape)} | bias
    spelling = STYLES[chance.choice(list(STYLES))].spelling if chance.random() < 0.2 else STYLES[style].spelling
    if kind == "core" and window:
        return alpha | {
            f"{name}.lora_mid.weight": _random(chance, dtype, rank, rank, *window),
            name + spelling.down: _random(chance, dtype, rank, width, 1, 1),
            name + spelling.up: _random(chance, dtype, out, rank, 1, 1),
        }
    bias = {f"{name}.lora_B.bias": _random(chance, dtype, out)} if kind == "bias" else {}
    ones = (1, 1) if window else ()
    return (
        alpha
        | bias
        | {
            name + spelling.down: _random(chance, dtype, rank, width, *window),
            name + spelling.up: _random(chance, dtype, out, rank, *ones),
        }
    )


def _some_key(draft: Draft, chance: random.Random) -> str:
    return chance.choice(list(draft.tensors))


def _renamed(draft: Draft, old: str, new: str) -> None:
    draft.tensors = {new if key == old else key: tensor for key, tensor in draft.tensors.items()}


def drop_key(draft: Draft, chance: random.Random) -> None:
    del draft.tensors[_some_key(draft, chance)]


def rename_key(draft: Draft, chance: random.Random) -> None:
    key = _some_key(draft, chance)
    place = chance.randrange(len(key))
    new = chance.choice(
        [
            key[:place] + chance.choice("abz019._") + key[place + 1 :],
            key[:place] + key[place + 1 :],
            f"{key}.extra",
            f"base_model.model.{key}",
            key.replace(".weight", ""),
            key.replace(".weight", ".default.weight"),
            key.replace("_", "."),
            key.upper(),
            f"\u202e{key}\n",
            "",
        ]
    )
    _renamed(draft, key, new)


def rename_module(draft: Draft, chance: random.Random) -> None:
    module = _some_key(draft, chance).rpartition(".")[0]
    new = module[:-1] + chance.choice("kqvz0123456789")
    draft.tensors = {key.replace(module, new): tensor for key, tensor in draft.tensors.items()}


def swap_values(draft: Draft, chance: random.Random) -> None:
    first, second = _some_key(draft, chance), _some_key(draft, chance)
    tensors = draft.tensors
    tensors[first], tensors[second] = tensors[second], tensors[first]


def transpose(draft: Draft, chance: random.Random) -> None:
    key = _some_key(draft, chance)
    tensor = draft.tensors[key]
    choices = [tensor.reshape(-1), tensor[None], tensor[..., None], tensor.reshape(*tensor.shape, 1, 1)]
    if tensor.ndim >= 2:
        choices += [
            tensor.transpose(0, 1),
            tensor.transpose(1, -1),
            tensor.flatten(1),
            tensor[1:],
            tensor[:, :-1],
            tensor[:0],
        ]
    draft.tensors[key] = chance.choice(choices)


def change_alpha(draft: Draft, chance: random.Random) -> None:
    names = [key for key in draft.tensors if key.endswith(".alpha")]
    name = chance.choice(names) if names else f"{_some_key(draft, chance).rpartition('.lora')[0]}.alpha"
    draft.tensors[name] = chance.choice(
        [
            *(torch.tensor(value) for value in (0.0, -1.0, math.nan, math.inf, 7.0, 1e-30, 3e38)),
            *(torch.tensor(3), torch.tensor(True), torch.tensor([2.0]), torch.tensor([[2.0]]), torch.ones(2)),
            *(torch.tensor(3.0).to(dtype) for dtype in TYPES.values()),
            torch.empty(0),
        ]
    )


def add_scale(draft: Draft, chance: random.Random) -> None:
    module = _some_key(draft, chance).rpartition(".lora")[0] or "x"
    draft.tensors[f"{module}.scale"] = torch.tensor(chance.choice([1.0, 0.5, 0.0, math.nan]))


def change_rank(draft: Draft, chance: random.Random) -> None:
    key = _some_key(draft, chance)
    tensor = draft.tensors[key].float()
    if tensor.ndim:
        where = chance.randrange(tensor.ndim)
        draft.tensors[key] = torch.cat([tensor, tensor.narrow(where, 0, tensor.shape[where] // 2)], where)


def change_type(draft: Draft, chance: random.Random) -> None:
    key = _some_key(draft, chance)
    draft.tensors[key] = draft.tensors[key].float().to(chance.choice(list(TYPES.values())))


def spoil_value(draft: Draft, chance: random.Random) -> None:
    key = _some_key(draft, chance)
    tensor = draft.tensors[key].float().clone()
    if tensor.numel():
        values = (math.nan, math.inf, -math.inf, 3e38, 1e-45, 0.0)
        tensor.reshape(-1)[chance.randrange(tensor.numel())] = chance.choice(values)
    draft.tensors[key] = tensor


def add_key(draft: Draft, chance: random.Random) -> None:
    module = _some_key(draft, chance).rpartition(".")[0]
    module = module.removesuffix(".lora_down").removesuffix(".lora_A")
    name = chance.choice(
        [
            *(f"{module}.{part}" for part in ("dora_scale", "diff", "diff_b", "w_norm", "lora_mid.weight", "hada_t1")),
            *(f"{module}.{part}" for part in ("lokr_t2", "lora_A.other.weight", "lora_B.bias", "weight", "reshape")),
            *("bundle_emb.anna.string_to_param.*", "emb_params", "position_ids", "unet.norm.w_norm", "a", ".alpha"),
            *("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", "bundle_emb.", "norm.diff", "é\ud7ff.diff"),
        ]
    )
    draft.tensors[name] = torch.ones(chance.choice([(), (1,), (4,), (2, 6), (2, 24), (3, 3, 3, 3), (0,)]))


def double_module(draft: Draft, chance: random.Random) -> None:
    """Give the same layer a second change, under another program's name."""
    other = valid_file(chance)
    names = {name: module for family, version in _versions() if version == draft.version
             for name, module in _written_names(family, version, chance.choice(list(STYLES)))}  # fmt: skip
    wanted = {
        layer
        for family, version in _versions()
        if version == draft.version
        for name, module in _written_names(family, version, draft.style)
        if any(key.startswith(f"{name}.") for key in draft.tensors)
        for layer in module.layers
    }
    name = next((name for name, module in names.items() if wanted & {*module.layers}), "lost")
    draft.tensors |= {f"{name}.{key.rpartition('.lora')[2]}": value for key, value in other.tensors.items()}


def change_metadata(draft: Draft, chance: random.Random) -> None:
    component = chance.choice(["unet", "transformer", "text_encoder", "diffusion_model", ""])
    settings = chance.choice(
        [
            {f"{component}.lora_alpha": chance.choice([1, 2.5, 8, 0, -1, "4", None, 10**400, math.nan, True])},
            {f"{component}.lora_alpha": 4, f"{component}.use_rslora": chance.choice([True, 1])},
            {f"{component}.alpha_pattern": chance.choice([{"to_k": 3}, {"(a": 1}, [], {"(.*)*x": 2}, {"": 2}])},
            {f"{component}.init_lora_weights": chance.choice(["pissa", True, "gaussian"])},
            [], "text", 3, None, {"unet": 3}, {"unet": {"lora_alpha": 3}},
        ]
    )  # fmt: skip
    text: object = json.dumps(settings)
    pairs: dict[str, object] = {
        "lora_adapter_metadata": chance.choice([text, text, text, "{", "[" * 100_000, "\ud800", 7, "{}"]),
        "ss_base_model_version": chance.choice(["sd1", "sdxl_base_v1-0", "flux1", "nothing", 3, None, "x" * 100_000]),
        "ss_tag_frequency": chance.choice(["{", "[]", '{"a": 3}', '{"a": {"b": "c"}}', '{"a": {"b": 1e400}}']),
        "software": chance.choice(["{", '{"name": 3}', "[1]"]),
        "orthoplex": chance.choice(["{}", "x", '{"format_version": 5}']),
        "modelspec.architecture": chance.choice(["Flux.1-dev/lora", "/", "stable-diffusion-xl-v1-base"]),
        "ss_network_dim": chance.choice(["x", "-1", "\u202e\x1b[31m"]),
    }
    key = chance.choice(["lora_adapter_metadata"] * 4 + list(pairs))
    draft.metadata[key] = pairs[key]


def change_header(draft: Draft, chance: random.Random) -> None:
    def change(header: dict[str, object]) -> object:
        keys = [key for key in header if key != "__metadata__"]
        first, second = chance.choice(keys), chance.choice(keys)
        a, b = dict(header[first]), dict(header[second])  # type: ignore[call-overload]
        start, end = a["data_offsets"]
        spoiled = chance.choice(
            [
                {"data_offsets": b["data_offsets"]}, {"data_offsets": [start + 2, end + 2]},
                {"data_offsets": [end, start]}, {"data_offsets": [start, end, end]}, {"data_offsets": [start, 1e300]},
                {"data_offsets": [0, end - start]}, {"data_offsets": [-start, end]}, {"shape": a["shape"][::-1]},
                {"shape": [*a["shape"], 1]}, {"shape": 3}, {"shape": [2**62, 2**62]}, {"shape": b["shape"]},
                {"dtype": chance.choice(["F4", "F16", "BF16", "I16", "U64", "C64", "", 3, "F8_E8M0"])},
                {"extra": 1},
            ]
        )  # fmt: skip
        header[first] = {**a, **spoiled}
        if chance.random() < 0.1:
            header["__metadata__"] = chance.choice([[], 3, {"a": 1}, {"a": None}, {"a": {}}])
        return header

    draft.header = change


def double_key(draft: Draft, chance: random.Random) -> None:
    def change(header: dict[str, object]) -> object:
        keys = [key for key in header if key != "__metadata__"]
        name = chance.choice(keys)
        doubled = json.dumps({chance.choice([name, "__metadata__"]): header[chance.choice(keys)]})
        return json.dumps(header)[:-1] + ", " + doubled[1:]

    draft.header = change


def change_bytes(draft: Draft, chance: random.Random) -> None:
    def change(content: bytes) -> bytes:
        place = chance.randrange(len(content) if chance.random() < 0.5 else min(len(content), 300))
        return chance.choice(
            [
                content[:place],
                content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :],
                content + b"\0" * chance.randint(1, 9),
                content[:place] + content[place + 1 :],
                chance.randbytes(8) + content[8:],
                b"",
            ]
        )

    draft.content = change


def change_nothing(draft: Draft, chance: random.Random) -> None:
    """A file that stays valid."""


MUTATIONS: list[Callable[[Draft, random.Random], None]] = [
    *(drop_key, rename_key, rename_module, swap_values, transpose, change_alpha, add_scale, change_rank, change_type),
    *(spoil_value, add_key, double_module, change_metadata, change_metadata, change_header, double_key, change_bytes),
    change_nothing,
]


def mutated_file(chance: random.Random) -> tuple[str, Draft]:
    """Return a file with one or two mutations, and their names."""
    draft, names = valid_file(chance), []
    for _ in range(chance.choice([1, 1, 2])):
        mutation = chance.choice(MUTATIONS)
        if draft.tensors:
            mutation(draft, chance)
            names.append(mutation.__name__)
    return " and ".join(names), draft
