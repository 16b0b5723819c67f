"""Networks with quantised weights: quantised after loading, or read from files that hold such weights already."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from io import FileIO
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from orthoplex.errors import BaseModelError, ConfigurationError, MissingExtraError
from orthoplex.files import DTYPES, Header, read_header, summary_of
from orthoplex.models.base_folder import quantised_form
from orthoplex.models.checkpoint_networks import stored_tensors
from orthoplex.models.identity import weights_hash
from orthoplex.models.quiet import quiet
from orthoplex.models.streamed_identity import CHUNK_BYTES, chunks, streamed_hash
from orthoplex.models.weight_files import WeightFiles, read_headers
from orthoplex.options import Quantisation

GGUF_SUFFIX = ".gguf"
QUANTISATIONS: tuple[Quantisation, ...] = get_args(Quantisation)
_PACKAGES = {"bnb": "bitsandbytes", "torchao": "torchao", "gguf": "gguf"}
"""What a name begins with -> the package that it needs."""
_CASTS = logging.getLogger("bitsandbytes.autograd._functions")
"""Says at every call of an 8-bit layer in which type it computes."""


def check_quantisation(kind: str | None) -> None:
    """Refuse a name of no quantisation, and one whose package is not installed.

    Args:
        kind: One of ``QUANTISATIONS``, or None.

    Raises:
        ConfigurationError: Names the value and those that are allowed.
        MissingExtraError: Names the package.
    """
    if kind is None:
        return
    if kind not in QUANTISATIONS:
        raise ConfigurationError(f"quantise is '{kind}', allowed are {', '.join(QUANTISATIONS)}")
    _check_package(f"quantise {kind}", kind.partition("-")[0])


def quantise_network(network: nn.Module, kind: Quantisation, device: torch.device) -> None:
    """Quantise a network's linear layers in place, one after the other; all other weights stay as they are.

    Layers that the network's class wants in float32 stay plain. So do those whose width a quantisation cannot divide.

    Args:
        network: Of diffusers or any other, with plain weights.
        kind: How; see ``check_quantisation``.
        device: Where the layers are quantised, and stay.

    Raises:
        BaseModelError: If the library cannot, as without a GPU; names the quantisation and the library's reason.
    """
    is_wanted = _filter(network)
    try:
        if kind.startswith("bnb"):
            _CASTS.addFilter(_is_no_cast)
            _by_bitsandbytes(network, kind, device, is_wanted)
        else:
            from torchao.quantization import quantize_

            quantize_(network, _torchao_config(kind), filter_fn=is_wanted, device=device)
    except Exception as error:  # noqa: BLE001  (libraries for other devices raise anything)
        raise BaseModelError(
            f"quantise {kind} does not work on device '{device}' here: {summary_of(error)}; others are "
            f"{', '.join(other for other in QUANTISATIONS if other != kind)}, or none"
        ) from error


def _is_no_cast(record: logging.LogRecord) -> bool:
    return "inputs will be cast" not in str(record.msg)


def _filter(network: Any) -> Callable[[nn.Module, str], bool]:  # noqa: ANN401  (a network of diffusers)
    exact = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    return lambda module, path: type(module) is nn.Linear and not exact.intersection(path.split("."))


def _torchao_config(kind: Quantisation) -> Any:  # noqa: ANN401  (torchao's configurations share no public parent)
    quantization: Any = importlib.import_module("torchao.quantization")
    match kind:
        case "torchao-int8":
            return quantization.Int8WeightOnlyConfig()
        case "torchao-int4":
            return quantization.Int4WeightOnlyConfig(group_size=128, int4_packing_format="tile_packed_to_4d")
        case _:
            return quantization.Float8WeightOnlyConfig()


def _by_bitsandbytes(
    network: nn.Module, kind: Quantisation, device: torch.device, is_wanted: Callable[[nn.Module, str], bool]
) -> None:
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.Linear) and is_wanted(module, path):
            outer, _, name = path.rpartition(".")
            setattr(network.get_submodule(outer), name, _bitsandbytes_layer(module, kind).to(device))


def _bitsandbytes_layer(linear: nn.Linear, kind: Quantisation) -> nn.Module:
    import bitsandbytes

    layers: Any = bitsandbytes.nn  # whose names have no types
    sizes: dict[str, Any] = {"input_features": linear.in_features, "output_features": linear.out_features}
    sizes["bias"] = linear.bias is not None
    values = linear.weight.data
    if kind == "bnb-8bit":
        new = layers.Linear8bitLt(**sizes, has_fp16_weights=False, device="meta")
        new.weight = layers.Int8Params(values, requires_grad=False, has_fp16_weights=False)
    else:
        new = layers.Linear4bit(**sizes, quant_type="nf4", compute_dtype=values.dtype, device="meta")
        new.weight = layers.Params4bit(values, requires_grad=False, quant_type="nf4", module=new)
        new.support_avx512bf16_for_cpu = False  # which re-orders weights at the first call, and fails for narrow ones
    new.bias = linear.bias
    return new.requires_grad_(False).train(linear.training)


def gguf_files(path: str | Path) -> WeightFiles:
    """Return a GGUF file as the weights of a denoiser.

    Raises:
        BaseModelError: If there is no such file, or it is none of GGUF.
        MissingExtraError: If the package that reads it is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise BaseModelError(f"denoiser '{path}' is no file; allowed is a GGUF file")
    with file.open("rb") as stream:
        start = stream.read(4)
    if start != b"GGUF":
        raise BaseModelError(f"denoiser '{path}' begins with {start!r}, not with b'GGUF'; allowed is a GGUF file")
    _check_package(f"denoiser '{path}'", "gguf")
    return WeightFiles((file,), file, is_safetensors=False)


def load_gguf(kind: Any, folder: Path, file: Path, dtype: torch.dtype) -> nn.Module:  # noqa: ANN401
    """Load a denoiser whose weights a GGUF file holds, in the names of diffusers or of the model's own code.

    Args:
        kind: The network's class, of diffusers.
        folder: The component's folder, for its ``config.json``.
        file: The GGUF file.
        dtype: The type that the layers compute in.

    Raises:
        BaseModelError: If the class has no such files, the file is damaged or of another network, or a weight is
            missing; names the file.
    """
    from diffusers.loaders.single_file_model import FromOriginalModelMixin
    from diffusers.quantizers.quantization_config import GGUFQuantizationConfig

    if not issubclass(kind, FromOriginalModelMixin):
        raise BaseModelError(f"{file.name} cannot be a {kind.__name__}: diffusers reads no GGUF files of this class")
    try:
        network: Any = kind.from_single_file(
            str(file),
            config=str(folder),
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
            dtype=dtype,
            local_files_only=True,
        )
    except Exception as error:  # noqa: BLE001  (a damaged file makes the libraries raise anything)
        raise BaseModelError(f"{file.name} cannot be read as a {kind.__name__}: {summary_of(error)}") from error
    if missing := [name for name, values in network.state_dict().items() if values.is_meta]:
        raise BaseModelError(f"{file.name} lacks {len(missing)} of the tensors of a {kind.__name__}: {missing[0]}")
    return network


def denoiser_of(family: Any) -> str:  # noqa: ANN401  (a class of families, which import this file)
    """Return the name of the component that predicts."""
    return next(component for component in family.changed if component not in family.text_encoders)


def quantised_files(
    family: Any,  # noqa: ANN401  (likewise)
    folder: Path,
    weight_files: Mapping[str, WeightFiles | None],
    quantise: str | None,
) -> dict[str, WeightFiles]:
    """Return the components that concepts change and whose files hold quantised weights, with these files.

    Args:
        family: The family's class.
        folder: The pipeline folder.
        weight_files: Component to its files.
        quantise: The quantisation that is asked for, or None.

    Raises:
        ConfigurationError: If the denoiser is quantised already and another quantisation is asked for.
    """
    stored = {
        component: files
        for component in family.changed
        if (files := weight_files[component]) is not None
        and files.part is None  # of a checkpoint file, whatever the folder of its settings holds
        and (files.main.suffix == GGUF_SUFFIX or quantised_form(folder / component) is not None)
    }
    denoiser = denoiser_of(family)
    if stored:
        _CASTS.addFilter(_is_no_cast)
    if quantise is not None and denoiser in stored:
        raise ConfigurationError(
            f"quantise is '{quantise}', and {stored[denoiser].main.name} holds quantised weights already; allowed is "
            "none"
        )
    return stored


def stored_hash(
    modules: Mapping[str, nn.Module], files: Mapping[str, WeightFiles | None], stored: Mapping[str, WeightFiles]
) -> str:
    """Hash quantised weights by the very numbers in their files, with the hash of the components that are plain.

    Args:
        modules: Component that is plain to its network.
        files: The same components to their files.
        stored: Component that is quantised to its files.

    Returns:
        64 hexadecimal digits.
    """
    own = {name: plain for name, plain in files.items() if plain is not None and plain.part is None}
    headers = {name: headers for name, plain in own.items() if (headers := read_headers(plain)) is not None}
    streamed = streamed_hash(headers) if headers.keys() == modules.keys() and _are_floats(headers) else None
    if streamed is None:  # of the files too: numbers in memory may be coarser
        streamed = weights_hash(modules, {name: stored_tensors(modules[name], name, files[name]) for name in modules})
    digest = hashlib.sha256(streamed.encode())
    for component, quantised in sorted(stored.items()):
        for name, pieces in sorted(_tensors(quantised), key=lambda item: item[0]):
            digest.update(f"{component}.{name}\n".encode())
            for piece in pieces:
                digest.update(piece)
    return digest.hexdigest()


def _are_floats(headers: Mapping[str, Mapping[Path, Header]]) -> bool:
    every = [header for files in headers.values() for header in files.values()]
    return all(entry.dtype in DTYPES for header in every for entry in header.entries.values())


def _tensors(files: WeightFiles) -> Iterator[tuple[str, Iterator[Any]]]:
    """Yield name, type and shape of every tensor, and its bytes; of pickles, the bytes of the file."""
    for path in files.files:
        if path.suffix == GGUF_SUFFIX:
            from gguf import GGUFReader

            for tensor in GGUFReader(path).tensors:
                yield f"{tensor.name} {tensor.tensor_type.name} {tensor.shape.tolist()}", iter([tensor.data.data])
        elif files.is_safetensors:
            header = read_header(path)
            for name, entry in header.entries.items():
                place = (header.data_start + entry.start, header.data_start + entry.end)
                yield f"{name} {entry.dtype} {entry.shape}", _read(path, *place)
        else:
            yield path.name, _read(path, 0, path.stat().st_size)


def _read(path: Path, start: int, end: int) -> Iterator[memoryview]:
    with FileIO(path) as file:
        yield from chunks(file, start, end, bytearray(CHUNK_BYTES))


def has_plain_numbers(values: Tensor) -> bool:
    """Return True for a tensor of plain floating-point numbers, which can be looked at without its library."""
    return type(values) in (Tensor, nn.Parameter) and values.is_floating_point()


def _check_package(what: str, package: str) -> None:
    with quiet():
        is_installed = find_spec(_PACKAGES[package]) is not None
    if not is_installed:
        raise MissingExtraError(what, _PACKAGES[package], "quantised")
