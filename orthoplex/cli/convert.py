"""``orthoplex convert``: a LoRA file of any program in the style of another."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from orthoplex.cli.console import errors_shown, named_file, refuse_existing
from orthoplex.cli.file_arguments import warn_left_out
from orthoplex.cli.streams import say
from orthoplex.options import WeightType

Target = Literal["kohya", "comfy", "diffusers", "bare", "orthoplex"]
Embeddings = Literal["files", "bundle", "none"]


def convert(
    file: Annotated[str, typer.Argument(help="LoRA file of any program, folder of PEFT, or concept file.")],
    output: Annotated[Path, typer.Option(help="File to write.")],
    to: Annotated[Target, typer.Option(help="Style; orthoplex writes an older concept file of ours anew.")] = "kohya",
    family: Annotated[str | None, typer.Option(help="Family or version, where it is not clear.")] = None,
    dtype: Annotated[WeightType | None, typer.Option(help="Type; by default the one that loses nothing.")] = None,
    embeddings: Annotated[Embeddings, typer.Option(help="Where embeddings go: beside the file, into it.")] = "files",
    keep_ranks: Annotated[bool, typer.Option("--keep-ranks", help="Let modules keep their own ranks.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out what cannot be read, and name it.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a LoRA file in the style of another program; its changes stay exactly as they are."""
    with errors_shown():
        refuse_existing(output, overwrite)

        import torch

        from orthoplex.concepts import convert_concept
        from orthoplex.concepts.exchange import read_lora, write_lora
        from orthoplex.concepts.exchange.client_rules import readers, readers_in_words
        from orthoplex.files import check_writable, read_header

        check_writable(output)
        if to == "orthoplex":
            manifest = convert_concept(named_file(file), output)
            say(f"{output}: {manifest.trigger}, in today's format")
            return
        lora = read_lora(named_file(file), partial=partial, family=family)
        warn_left_out(lora)
        written = write_lora(
            lora,
            output,
            style=to,
            dtype=None if dtype is None else getattr(torch, dtype),
            keep_ranks=keep_ranks,
            embeddings=embeddings,
        )
        family_name = "an unknown family" if lora.family is None else f"{lora.version or lora.family}"
        if written[0] == output and lora.layers:
            say(f"{output}: {len(lora.layers)} layers of {family_name}, {lora.style} to {to}")
            answers = {} if lora.family is None else readers(read_header(output), lora.family)
            if answers:
                say(f"read whole by: {readers_in_words(answers)}")
        for beside in written[1:] if lora.layers else written:
            say(f"{beside}: embedding")
