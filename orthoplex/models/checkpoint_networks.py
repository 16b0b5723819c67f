"""Networks out of checkpoint files: other programs' names of weights become those of diffusers and transformers.

The conversions are diffusers' own. Their results are checked as those of folders are; diffusers itself fills what a
file lacks with nothing, and drops what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn

from orthoplex.errors import BaseModelError
from orthoplex.files import read_header, read_tensors, summary_of
from orthoplex.models.quiet import quiet
from orthoplex.models.tensor_report import check_all_used, check_plain, check_tensors
from orthoplex.models.weight_files import CheckpointPart, WeightFiles

with quiet():
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import PreTrainedModel

_INNER = "text_model."
_OPEN_CLIP = ".resblocks."
_DENOISER = "model.diffusion_model."
_DENOISERS = ("unet", "transformer")
_CONDITIONER = "net.llm_adapter."
"""In front of the names of Anima's conditioner."""


def load_checkpoint_part(kind: Any, folder: Path, part: CheckpointPart, dtype: torch.dtype) -> nn.Module:  # noqa: ANN401
    """Load one network whole out of a checkpoint file.

    The network is built without numbers, and takes them one after another: the memory is that of its weights.

    Args:
        kind: The network's class, of diffusers or transformers.
        folder: A folder with its configuration, named as the component is.
        part: Where its weights are.
        dtype: Data type of the weights.

    Raises:
        BaseModelError: If diffusers reads no such files of the class, the configuration is damaged, or a weight is
            missing, unknown, or of another shape; names the file and the first such weights.
    """
    component = folder.name
    try:
        network = _empty(kind, folder)
    except Exception as error:  # noqa: BLE001  (a damaged folder makes the libraries raise anything)
        raise BaseModelError(f"{component} cannot be built: {summary_of(error)}") from error
    numbers = _converted(network, component, part, read_tensors(part.path, read_header(part.path), sorted(part.names)))
    places = {name: tuple(values.shape) for name, values in network.state_dict().items()}
    tied = _tied(network)
    check_tensors(
        part.path.name,
        component,
        network,
        missing=[name for name in places if name not in numbers and name not in tied],
        unexpected=[name for name in numbers if name not in places],
        mismatched=[
            (name, tuple(values.shape), places[name])
            for name, values in numbers.items()
            if name in places and tuple(values.shape) != places[name]
        ],
    )
    wide = _wide_parts(network) if dtype == torch.float16 else frozenset()
    for name in places:
        if (values := numbers.pop(name, None)) is not None:
            is_wide = bool(wide.intersection(name.split(".")))
            numbers_dtype = torch.float32 if is_wide else dtype
            _assign(network, name, values, numbers_dtype if values.is_floating_point() else values.dtype)
    if isinstance(network, PreTrainedModel):
        network.tie_weights()
        return network
    return network if wide else nn.Module.to(network, dtype)  # that of diffusers warns


def _converted(
    network: Any,  # noqa: ANN401  (a network of one of two libraries)
    component: str,
    part: CheckpointPart,
    tensors: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint file under the names of a network, which may be without numbers.

    Raises:
        BaseModelError: If diffusers reads no such files of the network's class, or they are of another form.
    """
    try:
        if isinstance(network, PreTrainedModel):
            return _of_text_encoder(network, tensors)
        bare = {name.removeprefix(_CONDITIONER).removeprefix(_DENOISER): values for name, values in tensors.items()}
        if bare.keys() >= network.state_dict().keys():  # the names of diffusers already
            return bare
        kind = next((name for name in _bases(network) if name in SINGLE_FILE_LOADABLE_CLASSES), None)
        if kind is None:
            raise BaseModelError(
                f"{component} is a {type(network).__name__}, which diffusers reads out of no checkpoint file; allowed "
                "is a pipeline folder"
            )
        convert: Any = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"]
        # diffusers asks for the prefix in U-Nets, and stumbles over it in the transformers of FLUX.2.
        named = tensors if isinstance(network, UNet2DConditionModel) else bare
        check_plain(part.path.name, component, named)
        given = sum(values.numel() for values in named.values())
        converted: dict[str, Tensor] = convert(checkpoint=named, config=dict(network.config))
        if component in _DENOISERS:
            check_all_used(part.path.name, component, given - sum(values.numel() for values in converted.values()))
        return converted
    except BaseModelError:
        raise
    except Exception as error:  # noqa: BLE001  (conversions raise anything where a file is of another form)
        raise BaseModelError(
            f"{part.path.name} holds another {component} than its settings say: {summary_of(error)}"
        ) from error


def stored_tensors(network: nn.Module, component: str, files: WeightFiles | None) -> dict[str, Tensor]:
    """Return the tensors of a loaded network as its files have them, under the network's names.

    Args:
        network: The network.
        component: The component's name.
        files: Its files.

    Returns:
        Tensors that lie in the files until they are read; none for pickles, and none of other names.
    """
    if files is None or not files.is_safetensors:
        return {}
    if files.part is not None:
        part = files.part
        with safe_open(part.path, "pt") as file:
            return _converted(network, component, part, {name: file.get_tensor(name) for name in part.names})
    tensors: dict[str, Tensor] = {}
    for path in files.files:
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a file is no mapping)
    names = {name for name, _ in network.named_parameters()}
    return {name: values for name, values in _renamed(network, tensors).items() if name in names}


def _empty(kind: Any, folder: Path) -> Any:  # noqa: ANN401  (a network of one of two libraries)
    """Build a network without numbers; its buffers have theirs."""
    if issubclass(kind, PreTrainedModel):
        config: Any = kind.config_class
        values = config.from_pretrained(folder, local_files_only=True)
        with init_empty_weights():
            return kind(values)
    values = kind.load_config(folder, local_files_only=True)
    with init_empty_weights():
        return kind.from_config(values)


def _of_text_encoder(network: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
    """Rename the tensors of a text encoder: those of OpenCLIP are cut up, all others have their library's names."""
    is_open_clip = any(_OPEN_CLIP in name for name in tensors)
    start = _beginning(tensors, ".model." if is_open_clip else ".transformer.")
    if is_open_clip:
        named: dict[str, Tensor] = convert_open_clip_checkpoint(network, dict(tensors), prefix=start)
    else:
        named = {name.removeprefix(start): values for name, values in tensors.items() if name.startswith(start)}
    return _renamed(network, named)


def _renamed(network: nn.Module, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names of a text encoder, which has an inner ``text_model`` or not; other names stay."""
    inside = any(name.startswith(_INNER) for name in network.state_dict())
    bare = {name.removeprefix(_INNER): values for name, values in named.items()}
    outside = ("text_projection.", "logit_scale")
    return {
        f"{_INNER}{name}" if inside and not name.startswith(outside) else name: values for name, values in bare.items()
    }


def _beginning(names: Iterable[str], end: str) -> str:
    """Return what stands in front of a text encoder's names, as ``cond_stage_model.transformer.``, or nothing."""
    return next((name[: name.index(end) + len(end)] for name in names if end in name), "")


def _bases(network: nn.Module) -> list[str]:
    return [kind.__name__ for kind in type(network).__mro__]


def _tied(network: nn.Module) -> frozenset[str]:
    """Return the weights that are others under a second name."""
    return frozenset(network.all_tied_weights_keys) if isinstance(network, PreTrainedModel) else frozenset()


def _wide_parts(network: nn.Module) -> frozenset[str]:
    """Return the parts of names whose weights the libraries keep in float32 where the others are float16."""
    names: Any = getattr(network, "_keep_in_fp32_modules", None) or ()
    strict: Any = getattr(network, "_keep_in_fp32_modules_strict", None) or ()
    return frozenset([names] if isinstance(names, str) else names) | frozenset(strict)


def _assign(network: nn.Module, name: str, values: Tensor, dtype: torch.dtype) -> None:
    """Give a network one of its weights, in memory of its own."""
    path, _, last = name.rpartition(".")
    module = network.get_submodule(path)
    is_own = values.is_contiguous() and values.untyped_storage().nbytes() == values.nbytes
    numbers = values if is_own and values.dtype == dtype else torch.empty(values.shape, dtype=dtype).copy_(values)
    if last in module._parameters:
        module._parameters[last] = nn.Parameter(numbers, requires_grad=False)
    else:
        module._buffers[last] = numbers
