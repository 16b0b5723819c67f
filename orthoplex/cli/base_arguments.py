"""The options of all verbs that take a base: which of its weights are read, and from where."""

from typing import TYPE_CHECKING, Annotated

import typer

from orthoplex.options import WeightType

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


def weight_type(name: WeightType) -> "torch.dtype":
    """Return the type of weights that a name stands for."""
    import torch

    return getattr(torch, name)


def chosen_base(base: str, variant: str | None, config: str | None, download: bool) -> "BaseChoice":
    """Return what the options of a base ask for."""
    from orthoplex.models import BaseChoice

    return BaseChoice(base, variant, config, download)
