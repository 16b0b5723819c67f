"""Networks out of checkpoint files: other programs' names of weights become those of diffusers and transformers.

The conversions are diffusers' own. Their results are checked as those of folders are; diffusers itself fills what a
file lacks with nothing, and drops what it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn

from orthoplex.errors import BaseModelError
from orthoplex.files import read_header, read_tensors, summary_of
from orthoplex.models.quiet import quiet
from orthoplex.models.tensor_report import check_tensors, refuse_quantised, refuse_unexpected
from orthoplex.models.weight_files import CheckpointPart, WeightFiles

with quiet():
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import PreTrainedModel

_INNER = "text_model."
_OPEN_CLIP = ".resblocks."
_DENOISER = "model.diffusion_model."
_CONDITIONER = "net.llm_adapter."
"""In front of the names of Anima's conditioner."""
_UNREAD = re.compile(r"^norm_final\.weight$|^first_stage_model\.(loss|model_ema)\.")
"""Tensors of published files that no network reads: a norm of Z-Image, and what autoencoders were trained with."""


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
    refuse_quantised(part.path.name, component, part.names)
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
        BaseModelError: If diffusers reads no such files of the network's class, they are of another form, or hold what
            it drops.
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
        refuse_unexpected(part.path.name, component, _unused(convert, named, dict(network.config)))
        return convert(checkpoint=named, config=dict(network.config))
    except BaseModelError:
        raise
    except Exception as error:  # noqa: BLE001  (conversions raise anything where a file is of another form)
        raise BaseModelError(
            f"{part.path.name} holds another {component} than its settings say: {summary_of(error)}"
        ) from error


@final
class _Traced(Tensor):
    """A tensor without numbers that knows which tensors of a file it is made of."""

    sources: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name: str, values: Tensor) -> _Traced:
        """Stand for a tensor of a file."""
        traced = torch.empty(values.shape, dtype=values.dtype, device="meta").as_subclass(cls)
        traced.sources = frozenset([name])
        return traced

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Iterable[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Compute, and give what comes out the sources of what went in."""
        made = super().__torch_function__(func, types, args, kwargs or {})
        sources = frozenset().union(*(each.sources for each in _traced([args, *(kwargs or {}).values()])))
        for each in _traced(made):
            each.sources = sources
        return made


def _traced(values: object) -> list[_Traced]:
    if isinstance(values, _Traced):
        return [values]
    return [each for value in values for each in _traced(value)] if isinstance(values, list | tuple) else []


def _unused(convert: Callable[..., Any], tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> list[str]:
    """Return the tensors that a conversion drops."""
    converted = convert(checkpoint={name: _Traced.of(name, each) for name, each in tensors.items()}, config=config)
    used = frozenset().union(*(each.sources for each in _traced(list(converted.values()))))
    return sorted(name for name in tensors if name not in used and not _UNREAD.search(name))


def stored_tensors(network: nn.Module, component: str, files: WeightFiles | None) -> dict[str, Tensor]:
    """Return the tensors of a loaded network as its files have them, under the network's names.

    Args:
        network: The network.
        component: The component's name.
        files: Its files.

    Returns:
        Tensors, which lie in the files until they are read but for those of pickles; none of other names.
    """
    if files is None:
        return {}
    if files.part is not None:
        part = files.part
        with safe_open(part.path, "pt") as file:
            return _converted(network, component, part, {name: file.get_tensor(name) for name in part.names})
    tensors: dict[str, Tensor] = {}
    for path in files.files:
        if not files.is_safetensors:
            tensors |= torch.load(path, map_location="cpu", weights_only=True)
            continue
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
        named = {name.removeprefix(start): values for name, values in tensors.items()}
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
