"""The options of all verbs that take a base: which of its weights are read, and from where."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orthoplex.options import Quantisation, WeightType

if TYPE_CHECKING:
    import torch

    from orthoplex.models import BaseChoice

BASE_HELP = "vignette, a pipeline folder, a name of the hub (owner/name[@revision]), or a checkpoint file"
BaseOption = Annotated[str, typer.Option("--base", help=f"{BASE_HELP}.")]
OptionalBaseOption = Annotated[str | None, typer.Option("--base", help=f"{BASE_HELP}.")]
VariantOption = Annotated[
    str | None, typer.Option("--variant", help="Which weights of the base are read, as fp16; plain ones by default.")
]
BaseConfigOption = Annotated[
    str | None,
    typer.Option("--base-config", help="Pipeline folder that gives a checkpoint file its settings and tokenizers."),
]
DownloadOption = Annotated[
    bool, typer.Option("--download", help="Fetch the base from the hub, if its cache on this machine lacks it.")
]
QuantiseOption = Annotated[
    Quantisation | None, typer.Option(help="Quantise the denoiser while it is loaded; it takes less memory.")
]
DenoiserOption = Annotated[
    Path | None, typer.Option(help="GGUF file whose weights take the place of the denoiser's in the folder.")
]
UnmergedOption = Annotated[
    bool, typer.Option("--unmerged", help="Leave all weights as they are; quantised ones are left so in any case.")
]


def weight_type(name: WeightType) -> "torch.dtype":
    """Return the type of weights that a name stands for."""
    import torch

    return getattr(torch, name)


def chosen_base(base: str, variant: str | None, config: str | None, download: bool) -> "BaseChoice":
    """Return what the options of a base ask for."""
    from orthoplex.models import BaseChoice

    return BaseChoice(base, variant, config, download)
