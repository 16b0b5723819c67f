"""``orthoplex adopt``: a LoRA of another program becomes a concept file, silent where it is not named."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orthoplex.cli.base_arguments import BaseConfigOption, BaseOption, DownloadOption, VariantOption, chosen_base
from orthoplex.cli.console import check_erasure_weight, errors_shown, named_file, refuse_concept_output
from orthoplex.cli.streams import say
from orthoplex.concepts import kind_of
from orthoplex.errors import ConfigurationError
from orthoplex.files import markdown_table

if TYPE_CHECKING:
    from orthoplex.activations import Adoption
    from orthoplex.concepts import Concept
    from orthoplex.models import Base


def adopt(
    lora: Annotated[str, typer.Argument(help="LoRA file of any program, or a folder as PEFT writes one.")],
    class_word: Annotated[str, typer.Option(help="Ordinary word for what it shows, such as person.")],
    output: Annotated[Path, typer.Option(help="Concept file to write.")],
    trigger: Annotated[
        str | None, typer.Option(help="Words that call it, such as 'sks person'; by default those of the file.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="person, subject, scene, style or other; by default as the class word says.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the concept; by default that of the file.")] = None,
    slot: Annotated[int | None, typer.Option(help="Slot whose directions it gets; by default none.", min=0)] = None,
    weight: Annotated[float, typer.Option(help="Weight of erasure against the concept's own prompts.")] = 30.0,
    unsolved: Annotated[
        Literal["keep", "leave-out"], typer.Option(help="What erasure cannot solve for: convolutions, norms, biases.")
    ] = "keep",
    base: BaseOption = "vignette",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing concept file.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    variant: VariantOption = None,
    base_config: BaseConfigOption = None,
    download: DownloadOption = False,
) -> None:
    """Make a concept of a LoRA file: silent where it is not named, and ready to be merged; nothing is trained."""
    with errors_shown():
        refuse_concept_output(output, overwrite)
        file = named_file(lora)
        check_erasure_weight(weight)

        from orthoplex.activations import ErasureOptions
        from orthoplex.activations import adopt as adopt_concept
        from orthoplex.concepts import save_concept
        from orthoplex.files import check_writable
        from orthoplex.models import load_base

        check_writable(output)
        model = load_base(chosen_base(base, variant, base_config, download), device=device)
        concept = _foreign(file, model, name, kind or kind_of(class_word), class_word, trigger)
        options = ErasureOptions(weight=weight).with_defaults(model.training_defaults)
        began = time.monotonic()
        adoption = adopt_concept(model, concept, options, slot=slot, unsolved=unsolved)
        save_concept(adoption.concept, output, overwrite=overwrite)
        _show(adoption, output, time.monotonic() - began)


def _foreign(file: Path, base: "Base", name: str | None, kind: str, class_word: str, trigger: str | None) -> "Concept":
    """The file as a concept of the base, with a trigger."""
    from orthoplex.concepts import foreign_concept, trigger_advice
    from orthoplex.concepts.any_file import is_foreign
    from orthoplex.concepts.exchange.embedding_files import missing_tokens, with_embeddings_beside
    from orthoplex.concepts.exchange.reading import read_lora
    from orthoplex.models import check_layers

    if file.is_file() and not is_foreign(file):
        from orthoplex.concepts import load_concept

        load_concept(file)
        raise ConfigurationError(f"{file} is a concept of Orthoplex already; orthoplex silence makes it silent")
    read = with_embeddings_beside(read_lora(file))
    if trigger is None and missing_tokens(read):
        raise ConfigurationError(
            f"{file}: its trigger names {', '.join(missing_tokens(read))}, whose embedding is neither in it nor beside "
            f"it; put it beside as {file.stem}.TOKEN.safetensors, or pass --trigger in words"
        )
    concept = foreign_concept(read, base.identity, name=name, kind=kind, class_word=class_word, trigger=trigger)
    check_layers(concept, base)
    if not concept.manifest.trigger.strip():
        advice = trigger_advice(read.metadata)
        raise ConfigurationError(
            f"{file}: its header tells no trigger; pass --trigger, as in --trigger 'sks {class_word}'"
            + (f" ({advice})" if advice else "")
        )
    return concept


def _show(adoption: "Adoption", output: Path, seconds: float) -> None:
    """Print what is left of every layer's effect, and of all."""
    own, elsewhere = adoption.energy_kept, adoption.energy_elsewhere
    if own:
        rows = [[layer, f"{100 * own[layer]:.1f} %", f"{100 * elsewhere[layer]:.2f} %"] for layer in own]
        say(markdown_table(["layer", "energy kept on own prompts", "energy left on foreign prompts"], rows))
    manifest = adoption.concept.manifest
    texts = [f"{output}: {manifest.name}, called by '{manifest.trigger}', in {seconds:.1f} s"]
    if own:
        mean = "1 layer" if len(own) == 1 else f"mean of {len(own)} layers"
        texts.append(
            f"energy kept {100 * adoption.mean_kept:.1f} % on own prompts, {100 * adoption.mean_elsewhere:.2f} % on "
            f"foreign ones, {mean}"
        )
    else:
        texts.append("its tokens alone, which change no weight")
    if adoption.unsolved:
        count = len(adoption.unsolved)
        noun = (
            "1 layer that erasure cannot solve for" if count == 1 else f"{count} layers that erasure cannot solve for"
        )
        share = f"{100 * adoption.unsolved_share:.1f} % of the file's change by squared size"
        fate = "stays and acts on every prompt" if adoption.are_kept else "is left out"
        texts.append(f"{noun}: {share} {fate}")
    say("; ".join(texts))
