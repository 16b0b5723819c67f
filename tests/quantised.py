"""Quantised layers and files of every kind that runs on a CPU, for the tests of several rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from orthoplex.models.quantising import quantise_network
from orthoplex.models.quiet import quiet

with quiet():
    import gguf
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter
    from torchao.quantization import IntxWeightOnlyConfig, quantize_

CPU_KINDS = ("bnb-8bit", "bnb-4bit", "torchao-int8", "torchao-fp8")
"""Those that ``load_base(quantise=…)`` takes on a CPU."""
KINDS = (*CPU_KINDS, "torchao-intx4", "gguf-Q8_0", "gguf-Q4_0", "gguf-BF16")
"""Those and others that pipelines may come with."""


def quantise_layers(network: nn.Module, kind: str) -> None:
    """Quantise all linear layers of a network, in place."""
    if kind == "torchao-intx4":
        quantize_(network, IntxWeightOnlyConfig(weight_dtype=torch.int4))
    elif kind.startswith("gguf"):
        for path, module in list(network.named_modules()):
            if type(module) is nn.Linear:
                outer, _, name = path.rpartition(".")
                setattr(network.get_submodule(outer), name, _gguf_layer(module, kind))
    else:
        quantise_network(network, kind, torch.device("cpu"))  # pyright: ignore[reportArgumentType]


def _gguf_layer(linear: nn.Linear, kind: str) -> nn.Module:
    number_type = gguf.GGMLQuantizationType[kind.removeprefix("gguf-")]
    new = GGUFLinear(linear.in_features, linear.out_features, linear.bias is not None, linear.weight.dtype)
    packed = torch.from_numpy(gguf.quants.quantize(linear.weight.detach().float().numpy(), number_type))
    new.weight = GGUFParameter(packed, quant_type=number_type)
    new.bias = linear.bias
    return new.requires_grad_(False)


def write_gguf(weights: Path, output: Path, number_type: str = "Q8_0") -> Path:
    """Write a safetensors file as a GGUF file; weights that do not divide into blocks, and convolutions, as float32."""
    writer = gguf.GGUFWriter(output, "unet")
    wanted = gguf.GGMLQuantizationType[number_type]
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    for name, tensor in load_file(weights).items():
        values: Any = tensor.float().numpy()
        if values.ndim == 2 and values.shape[1] % block == 0:
            writer.add_tensor(name, gguf.quants.quantize(values, wanted), raw_dtype=wanted)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return output
