"""``orthoplex inspect``: what a concept file or a LoRA file of another program says about itself, without torch."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from orthoplex.cli.console import errors_shown, named_file
from orthoplex.cli.streams import say_json, say_table
from orthoplex.concepts import TOKENS, Manifest, manifest_to_json, read_manifest
from orthoplex.concepts.blocks import Companion
from orthoplex.concepts.exchange import lora_summary
from orthoplex.concepts.exchange.client_rules import readers, readers_in_words
from orthoplex.concepts.exchange.contents import tensor_file
from orthoplex.concepts.layer_table import layer_table
from orthoplex.concepts.manifest_json import MANIFEST_KEY
from orthoplex.errors import FileFormatError
from orthoplex.files import PICKLE_SUFFIXES, read_header


def inspect(
    file: Annotated[str, typer.Argument(help="Concept file, LoRA file of another program, or folder of PEFT.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    family: Annotated[str | None, typer.Option(help="Family or version of a LoRA file, where it is not clear.")] = None,
) -> None:
    """Print what a file says about itself; its header alone is read. Exit code 2 if it is cut off or not readable."""
    with errors_shown():
        path = named_file(file)
        if path.suffix.lower() in PICKLE_SUFFIXES and _show_pickled(path, as_json=as_json):
            return
        if _is_foreign(path):
            summary = lora_summary(path, family)
            say_json(summary.to_json()) if as_json else say_table(str(path), summary.lines())
            return
        manifest = read_manifest(path)
        if as_json:
            say_json(json.loads(manifest_to_json(manifest)))
        else:
            say_table(str(path), _rows(manifest) + _readers(path, manifest))
        read_header(path).check_whole(path)


def _show_pickled(path: Path, *, as_json: bool) -> bool:
    """Show an embedding of PyTorch; False if it is something else, which is not opened."""
    from orthoplex.concepts.exchange.embeddings import pickled_embedding

    embeddings = pickled_embedding(path)
    if embeddings is None:
        return False
    sizes = {
        token: {encoder: tuple(rows.shape) for encoder, rows in parts.items()} for token, parts in embeddings.items()
    }
    if as_json:
        say_json({"path": str(path), "embeddings": sizes})
        return True
    parts = [
        f"{token}: {rows} of {width} numbers for {encoder}"
        for token, encoders in sizes.items()
        for encoder, (rows, width) in encoders.items()
    ]
    say_table(str(path), [("kind", "textual-inversion embedding of PyTorch"), ("embeddings", ", ".join(parts))])
    return True


def _is_foreign(path: Path) -> bool:
    """True if a file is whole enough to have a header, and has no manifest of ours."""
    try:
        metadata = read_header(tensor_file(path)).metadata
    except FileFormatError:
        return False
    return MANIFEST_KEY not in metadata


def _rows(manifest: Manifest) -> list[tuple[str, str]]:
    """The manifest in lines for people; layers and configurations are summed up."""
    components = Counter(layer.split(".")[0] for layer in manifest.layers)
    ranks = sorted({rank for _, rank, _ in manifest.layers.values()})
    layers = ", ".join(f"{count} in {component}" for component, count in sorted(components.items())) or "none"
    return [
        ("name", manifest.name),
        ("kind", manifest.kind),
        ("class word", manifest.class_word),
        ("trigger", manifest.trigger),
        ("base", f"{manifest.base.name} ({manifest.base.family}, {manifest.base.hash[:12]})"),
        ("method", manifest.method),
        ("adapter", _options(manifest.adapter)),
        ("basis", manifest.basis_id or "none"),
        ("slot", "none" if manifest.slot is None else str(manifest.slot)),
        ("layers", layers),
        ("ranks", ", ".join(map(str, ranks)) or "none"),
        ("tokens", _tokens(manifest)),
        ("inputs", _inputs(manifest)),
        ("training", _options(manifest.training)),
        ("lengthened", ", ".join(f"from {steps} steps" for steps in manifest.lengthened_from) or "never"),
        ("trained on", "its base" if manifest.trained_on is None else str(manifest.trained_on)),
        ("file beside", "none" if manifest.companion is None else _beside(manifest.companion)),
        ("data set", manifest.dataset_hash[:12] or "unknown"),
        ("content", manifest.content_hash[:12] or "unknown"),
        ("thumbnail", f"holds {manifest.picture}"),
        ("created", manifest.created),
        ("written by", f"orthoplex {manifest.package_version}, format {manifest.format_version}"),
    ]


def _readers(path: Path, manifest: Manifest) -> list[tuple[str, str]]:
    """Which programs read the layers of a concept file whole; nothing where nothing is known."""
    table = layer_table(manifest.base.family)
    if table is None or not manifest.layers:
        return []
    answers = readers(read_header(path), table.family)
    return [("read whole by", readers_in_words(answers))] if answers else []


def _tokens(manifest: Manifest) -> str:
    names = " ".join(manifest.tokens.names) or "none"
    kind = TOKENS[manifest.tokens.kind]
    if not kind.description:
        return names
    count = len(manifest.numbers[kind.blocks[0]].shapes) if kind.blocks else len(manifest.tokens.fields["token_layers"])
    return f"{names}, {kind.description.format(count=count)}"


def _inputs(manifest: Manifest) -> str:
    return "what its layers see is kept" if manifest.has_inputs else "none kept"


def _beside(companion: Companion) -> str:
    return f"{companion.file}, with {' and '.join(companion.blocks)}"


def _options(values: Any) -> str:  # noqa: ANN401  (JSON values)
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None) or "none"
