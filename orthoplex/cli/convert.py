"""``orthoplex convert``: a LoRA file of any program in the style of another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orthoplex.cli.console import errors_shown, named_file, refuse_existing
from orthoplex.cli.file_arguments import warn_left_out
from orthoplex.cli.streams import say
from orthoplex.errors import ConfigurationError
from orthoplex.options import WeightType

if TYPE_CHECKING:
    from orthoplex.concepts.exchange import LoraFile

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
        source = named_file(file)

        import torch

        from orthoplex.concepts import convert_concept
        from orthoplex.concepts.exchange import read_lora, write_lora
        from orthoplex.concepts.exchange.client_rules import readers, readers_in_words
        from orthoplex.concepts.exchange.writing import files_written
        from orthoplex.files import check_writable, read_header

        check_writable(output)
        _refuse_input(output, source)
        if to == "orthoplex":
            given = {"--dtype": dtype is not None, "--embeddings": embeddings != "files", "--keep-ranks": keep_ranks}
            given |= {"--partial": partial, "--family": family is not None}
            _refuse_options([name for name, is_given in given.items() if is_given])
            manifest = convert_concept(source, output, overwrite=overwrite)
            say(f"{output}: {manifest.trigger}, in today's format")
            return
        lora = read_lora(source, partial=partial, family=family)
        for path in files_written(lora, output, embeddings):
            _refuse_input(path, source)
        warn_left_out(lora)
        written = write_lora(
            lora,
            output,
            style=to,
            dtype=None if dtype is None else getattr(torch, dtype),
            keep_ranks=keep_ranks,
            embeddings=embeddings,
            overwrite=overwrite,
        )
        changes = len(lora.layers) + len(lora.differences)
        family_name = "an unknown family" if lora.family is None else f"{lora.version or lora.family}"
        if changes:
            say(f"{output}: {_counted(lora)} of {family_name}, {lora.style} to {to}")
            answers = {} if lora.family is None else readers(read_header(output), lora.family)
            if answers:
                say(f"read whole by: {readers_in_words(answers)}")
        for beside in written[1:] if changes else written:
            say(f"{beside}: embedding")


def _counted(lora: "LoraFile") -> str:
    """The layers with a change, and the full differences of parameters."""
    parts = {"layer": len(lora.layers), "full difference": len(lora.differences)}
    return " and ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in parts.items() if count)


def _refuse_options(given: list[str]) -> None:
    if given:
        raise ConfigurationError(
            f"{', '.join(given)} given with --to orthoplex, which writes a concept file anew as it is; allowed is none"
        )


def _refuse_input(output: Path, source: Path) -> None:
    """Refuse to write over the file that is read."""
    from orthoplex.concepts.exchange.contents import tensor_file

    tensors = tensor_file(source)
    if output.exists() and tensors.exists() and output.samefile(tensors):
        raise ConfigurationError(f"output {output} is the file that is converted; give another name")
