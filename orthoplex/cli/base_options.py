"""Options of verbs that load a base: how its denoiser is quantised, and where its weights come from."""

from pathlib import Path
from typing import Annotated

import typer

from orthoplex.options import Quantisation

QuantiseOption = Annotated[
    Quantisation | None, typer.Option(help="Quantise the denoiser while it is loaded; it takes less memory.")
]
DenoiserOption = Annotated[
    Path | None, typer.Option(help="GGUF file whose weights take the place of the denoiser's in the folder.")
]
UnmergedOption = Annotated[
    bool, typer.Option("--unmerged", help="Leave all weights as they are; quantised ones are left so in any case.")
]
