"""``orthoplex rename``: another name for a concept, so that two of one name can be merged."""

from pathlib import Path
from typing import Annotated

import typer

from orthoplex.cli.console import errors_shown, named_file, refuse_existing
from orthoplex.cli.streams import say


def rename(
    file: Annotated[str, typer.Argument(help="Concept file.")],
    name: Annotated[str, typer.Argument(metavar="NEW-NAME", help="The new name; prompts then say <new-name>.")],
    output: Annotated[Path, typer.Option(help="Concept file to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing concept file.")] = False,
) -> None:
    """Give a concept another name; its weights stay as they are."""
    with errors_shown():
        from orthoplex.concepts import load_concept, renamed, save_concept
        from orthoplex.files import check_writable

        refuse_existing(output, overwrite)
        check_writable(output)
        concept = load_concept(named_file(file))
        manifest = save_concept(renamed(concept, name), output, overwrite=overwrite)
        say(f"{output}: {concept.manifest.trigger} is now {manifest.trigger}")
