"""``orthoplex bank``: a folder of concepts that share slots."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orthoplex.cli.base_arguments import OptionalBaseOption, chosen_base
from orthoplex.cli.console import errors_shown
from orthoplex.cli.streams import note, say, say_table

if TYPE_CHECKING:
    from orthoplex.concepts import BaseIdentity
    from orthoplex.concepts.bank import Bank
    from orthoplex.models import Base
    from orthoplex.training import TrainingConfig

app = typer.Typer(
    help="Keep concepts of one base in a folder, with slots that no two of them share.", no_args_is_help=True
)
FolderArgument = Annotated[Path, typer.Argument(metavar="BANK", help="Folder of the bank.")]
BankOption = Annotated[
    Path | None, typer.Option("--bank", help="Bank, whose concepts are then given by their names; others are files.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_WRONG_EXIT = 1


@app.command()
def init(
    folder: FolderArgument,
    base: OptionalBaseOption = None,
) -> None:
    """Make an empty bank."""
    with errors_shown():
        from orthoplex.concepts.bank import Bank

        made = Bank.create(folder, _identity(base))
        say(f"{made.folder}: an empty bank" + ("" if made.base is None else f" of base {made.base}"))


@app.command()
def add(
    folder: FolderArgument,
    files: Annotated[list[Path], typer.Argument(help="Concept or LoRA files.")],
    base: OptionalBaseOption = None,
    replace_: Annotated[bool, typer.Option("--replace", help="Take the place of a concept of the same name.")] = False,
) -> None:
    """Add concept files, and LoRA files of other programs."""
    with errors_shown():
        from orthoplex.concepts.bank import Bank, add_file

        bank = Bank(folder)
        identity = _identity(base)
        for file in files:
            before = {entry.content_hash for entry in bank}
            entry = add_file(bank, file, base=identity, replace=replace_)
            where = "" if entry.slot is None else f", slot {entry.slot}"
            say(f"{entry.name} {'is there already' if entry.content_hash in before else 'added'}: {entry.kind}{where}")


@app.command("list")
def list_(folder: FolderArgument, json: JsonOption = False) -> None:
    """List the concepts; no file of theirs is opened."""
    with errors_shown():
        from orthoplex.concepts.bank import Bank

        bank = Bank(folder)
        if json:
            _say_json([entry.to_json() for entry in bank])
            return
        rows = [
            (entry.name, entry.kind, entry.trigger, str(entry.rank), "" if entry.slot is None else str(entry.slot))
            for entry in bank
        ]
        rows += [(item.name, "", "(slot reserved)", "", str(item.slot)) for item in bank.reservations]
        heads = ("name", "kind", "trigger", "rank", "slot")
        say_table(f"{len(bank)} concepts", rows, heads) if rows else say("no concepts")


@app.command()
def verify(
    folder: FolderArgument,
    clean: Annotated[bool, typer.Option("--clean", help="Delete what interrupted calls left over.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare all files with the ledger; exit code 1 if one is missing or another."""
    with errors_shown():
        from orthoplex.concepts.bank import Bank

        bank = Bank(folder)
        for path in bank.clean() if clean else ():
            note(f"{path} deleted")
        problems = bank.verify()
        if json:
            _say_json([asdict(problem) for problem in problems])
        else:
            for problem in problems:
                say(f"{problem.file} {problem.text}" + ("; --clean deletes it" if problem.is_left_over else ""))
            say(f"{len(bank)} concepts, {sum(entry.num_bytes for entry in bank)} bytes: {_verdict(len(problems))}")
        if any(not problem.is_left_over for problem in problems):
            raise typer.Exit(_WRONG_EXIT)


@app.command()
def capacity(folder: FolderArgument, json: JsonOption = False) -> None:
    """Say how many slots there are, and whose they are."""
    with errors_shown():
        from orthoplex.concepts.bank import Bank

        partitions = Bank(folder).partitions()
        if json:
            _say_json(
                [
                    {"partition": item.name, "capacity": item.capacity, "free": item.free, "owners": dict(item.owners)}
                    for item in partitions
                ]
            )
            return
        if not partitions:
            say("no concept has a slot")
        for item in partitions:
            free = "unknown" if item.free is None else str(item.free)
            total = "" if item.capacity is None else f" of {item.capacity}"
            owners = ", ".join(f"{slot} {owner}" for slot, owner in sorted(item.owners.items()))
            say(f"{item.name}: {len(item.owners)}{total} slots given, {free} free ({owners})")


@app.command()
def remove(
    folder: FolderArgument,
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Concepts, or reserved slots.")],
) -> None:
    """Delete concepts; their slots are free afterwards."""
    with errors_shown():
        from orthoplex.concepts.bank import Bank

        bank = Bank(folder)
        for name in names:
            bank.remove(name)
            say(f"{name} removed")


def banked(texts: list[str] | None, folder: Path | None) -> list[str]:
    """Return arguments ``NAME[@STRENGTH]`` as files, where a bank has a concept of that name; others as they are.

    Args:
        texts: The arguments of concepts.
        folder: The bank, or None.

    Raises:
        ConfigurationError: If one is neither in the bank nor a file; names the nearest in the bank.
        FileFormatError: If the folder is no bank.
    """
    if folder is None:
        return texts or []
    from orthoplex.concepts.bank import Bank

    bank = Bank(folder)
    return [_banked(text, bank) for text in texts or []]


def _banked(text: str, bank: "Bank") -> str:
    before, separator, strength = text.rpartition("@")
    name, rest = (before, f"@{strength}") if separator and "/" not in strength else (text, "")
    if name not in bank and any(Path(f"{part}{end}").exists() for part in (text, name) for end in ("", ".safetensors")):
        return text
    return f"{bank.path(name)}{rest}"


def check_bank(folder: Path | None) -> None:
    """Refuse a folder that is no bank, before anything is loaded.

    Raises:
        FileFormatError: See ``Bank``.
    """
    if folder is not None:
        from orthoplex.concepts.bank import Bank

        Bank(folder)


def in_bank(
    folder: Path | None, name: str, settings: "TrainingConfig", model: "Base", *, again: bool
) -> "TrainingConfig":
    """Return the options of a training with a slot that a bank gives it; the same slot when it is given before.

    Args:
        folder: The bank; None leaves the options as they are.
        name: The concept's name.
        settings: The options; a method without slots gets none.
        model: The base.
        again: True if a concept of that name may be in the bank: a training that goes on, or takes its place.

    Raises:
        ConfigurationError: If a slot is given otherwise, the bank is of another base, or has such a concept.
        CapacityError: If no slot is free.
    """
    if folder is None:
        return settings
    from orthoplex.adapters import owned_slot, slot_capacity, slot_partition
    from orthoplex.concepts.bank import Bank
    from orthoplex.errors import ConfigurationError
    from orthoplex.training import changed_layers

    bank = Bank(folder)
    if bank.base is not None and bank.base.hash != model.identity.hash:
        raise ConfigurationError(f"bank {folder} is of base {bank.base}, this is {model.identity}; one base is allowed")
    if name in bank and not again:
        raise ConfigurationError(
            f"bank {folder} has a concept {name}; give another name, --resume to go on with its training, or "
            "--overwrite to begin anew and replace it"
        )
    if settings.slot != "auto":
        raise ConfigurationError(
            f"slot is {settings.slot} and --bank is {folder}, which gives the slot; give one of them"
        )
    if settings.layers == "none" or owned_slot(settings.adapter, name) is None:
        return settings
    recorded = asdict(settings.adapter)
    widths = [linear.in_features for linear in changed_layers(model, settings).values()]
    slot = bank.reserve(name, slot_partition(recorded), capacity=slot_capacity(recorded, widths))
    note(f"Slot {slot} of bank {folder}")
    return replace(settings, slot=slot)


@contextmanager
def reserved_slot(folder: Path | None, name: str, checkpoint: Path) -> Iterator[None]:
    """Around ``in_bank`` and the training: a slot that was given inside is free again if the training never began.

    Args:
        folder: The bank, or None.
        name: The concept's name.
        checkpoint: What a training leaves that can go on.
    """
    if folder is None:
        yield
        return
    from orthoplex.concepts.bank import Bank

    bank = Bank(folder)
    before = {item.name for item in bank.reservations}
    try:
        yield
    except BaseException:
        is_new = name in {item.name for item in bank.reservations} - before
        if is_new and name not in bank and not checkpoint.is_file():  # removing takes a concept of that name, too
            bank.remove(name)
        raise


def put_into_bank(folder: Path | None, output: Path, *, again: bool) -> None:
    """Add a trained concept to its bank, if it has one."""
    if folder is None:
        return
    from orthoplex.concepts.bank import Bank, add_file

    entry = add_file(Bank(folder), output, replace=again)
    say(f"{entry.name} is in bank {folder}")


def _identity(base: str | None) -> "BaseIdentity | None":
    """The base of an option; loading it is the one safe source of its hash."""
    if base is None:
        return None
    from orthoplex.models import load_base

    return load_base(chosen_base(base, None, None, False)).identity


def _say_json(values: Iterable[object]) -> None:
    import json

    say("[" + ",".join(f"\n {json.dumps(value)}" for value in values) + "\n]")


def _verdict(count: int) -> str:
    return "all as they were added" if not count else f"{count} to look at"
