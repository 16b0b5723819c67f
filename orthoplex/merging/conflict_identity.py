"""What two files say about themselves that no merge can bring together: tokens, trigger words, bases."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

import torch
from torch import Tensor

from orthoplex.concepts import Concept
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.layer_table import layer_table
from orthoplex.concepts.tokens.token import named_tensors
from orthoplex.merging.strengths import Strengths

Level = Literal["none", "mild", "strong"]
LEVELS: tuple[Level, ...] = ("none", "mild", "strong")

_REPEATS = re.compile(r"^\d+_")
"""Of the folders of sd-scripts: ``10_sks woman`` is repeated ten times."""
_USUAL_WORDS = frozenset(
    "a an the in by of photo picture image drawing painting style artstyle woman man girl boy person people character "
    "1girl 1boy solo dog cat car".split()
)
"""Words that call no one LoRA when a phrase begins with them."""
_SEPARATORS = re.compile("[,;|]")
_HASHES = ("ss_new_sd_model_hash", "ss_sd_model_hash")


@final
@dataclass(frozen=True)
class Clash:
    """A clash of two files that no number measures.

    Attributes:
        kind: ``"token"``, ``"trigger"``, ``"base"``, ``"shape"`` or ``"copy"``.
        level: ``"mild"`` or ``"strong"``.
        first: The name of one file.
        second: The name of the other.
        message: A sentence.
        cure: What to do.
    """

    kind: Literal["token", "trigger", "base", "shape", "copy"]
    level: Level
    first: str
    second: str
    message: str
    cure: str


@final
@dataclass(frozen=True, eq=False)
class FileIdentity:
    """What a file says about itself.

    Attributes:
        name: The name of the file in a report; no other file there has it.
        path: The file; None for changes without one.
        strengths: Its strengths in the merge.
        family: The layer table of its base, such as ``stable_diffusion``; None if unknown.
        version: The version of the family, such as ``sd1``; None if unknown.
        base_hash: The hash of the base of a concept; None for other files.
        architectures: What the header says of the base, key to value.
        checkpoint: The base's checkpoint as the header names it; empty if it does not.
        checkpoint_hashes: Its hashes as the header has them, key to hash.
        tokens: Token to its numbers, one tensor for each text encoder or layer.
        triggers: The words that call it, in lower case.
        is_concept: True for a concept of ours.
    """

    name: str
    path: Path | None = None
    strengths: Strengths = field(default_factory=Strengths)
    family: str | None = None
    version: str | None = None
    base_hash: str | None = None
    architectures: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    checkpoint_hashes: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    triggers: tuple[str, ...] = ()
    is_concept: bool = False

    @property
    def argument(self) -> str:
        """The file as an argument of a command."""
        return shlex.quote(str(self.path)) if self.path is not None else self.name

    @property
    def argument_with_strength(self) -> str:
        """The file with ``@`` and the strength of the whole, if that is not 1."""
        whole = self.strengths.whole
        return self.argument if whole == 1 else f"{self.argument}@{whole:g}"


def identity_of(file: Concept | LoraFile, name: str, strengths: Strengths) -> FileIdentity:
    """Return what a file says about itself.

    Args:
        file: A concept or another LoRA file.
        name: Its name in the report.
        strengths: Its strengths in the merge.
    """
    if isinstance(file, Concept):
        base = file.manifest.base
        tokens = {token: dict(named_tensors({token: item})) for token, item in file.tokens.items()}
        table = layer_table(base.family)
        family = None if table is None else table.family
        return FileIdentity(
            name,
            file.path,
            strengths,
            family,
            base.family,
            base.hash,
            checkpoint=base.name,
            tokens=tokens,
            triggers=_concept_triggers(file),
            is_concept=True,
        )
    header = file.metadata
    names = ("modelspec.architecture", "ss_base_model_version", "ss_v_parameterization", "modelspec.prediction_type")
    said = {key: header[key] for key in names if header.get(key)}
    hashes = {key: header[key].lower() for key in _HASHES if header.get(key) not in (None, "", "None")}
    checkpoint = header.get("ss_sd_model_name", "")
    return FileIdentity(
        name,
        file.path,
        strengths,
        file.family,
        file.version,
        architectures=said,
        checkpoint="" if checkpoint == "None" else Path(checkpoint.replace("\\", "/")).name,
        checkpoint_hashes=hashes,
        tokens=file.embeddings,
        triggers=trigger_words(header),
    )


def trigger_words(header: Mapping[str, str]) -> tuple[str, ...]:
    """Return the phrases by which a header says that a LoRA is called, in lower case and each once.

    ``modelspec.trigger_phrase`` is a list with commas, semicolons or bars. The folders of sd-scripts are
    ``10_sks woman``.

    Args:
        header: The text pairs of a file's header.
    """
    phrases = _SEPARATORS.split(header.get("modelspec.trigger_phrase", ""))
    for key in ("ss_dataset_dirs", "ss_tag_frequency"):
        phrases += [_REPEATS.sub("", Path(folder).name) for folder in _names(header.get(key, ""))]
    return _plain_phrases(phrases)


def _plain_phrases(phrases: Iterable[str]) -> tuple[str, ...]:
    """Phrases in lower case with single blanks, each once and none empty."""
    return tuple(dict.fromkeys(phrase for raw in phrases if (phrase := " ".join(raw.lower().split()))))


def _concept_triggers(concept: Concept) -> tuple[str, ...]:
    """The phrases of a concept's trigger without its tokens, which clash by themselves.

    Beside a token, the class word and usual words call nothing: all of ``<anna> person`` that calls is ``<anna>``.
    """
    manifest = concept.manifest
    if not concept.tokens:
        return _plain_phrases(_SEPARATORS.split(manifest.trigger))
    tokens = "|".join(map(re.escape, sorted(concept.tokens, key=len, reverse=True)))
    usual = {*_USUAL_WORDS, *manifest.class_word.lower().split()}
    phrases = _plain_phrases(_SEPARATORS.split(re.sub(tokens, " ", manifest.trigger)))
    return tuple(phrase for phrase in phrases if not usual.issuperset(phrase.split()))


def _names(text: str) -> list[str]:
    """The keys of a JSON object that look like a folder of sd-scripts; none if the text is no such object."""
    try:
        values = json.loads(text)
    except ValueError:
        return []
    return [key for key in values if _REPEATS.match(Path(key).name)] if isinstance(values, dict) else []


def clashes(first: FileIdentity, second: FileIdentity) -> Iterator[Clash]:
    """Yield the clashes of two files' tokens, trigger words and bases.

    Args:
        first: One file.
        second: The other.
    """
    yield from _token_clashes(first, second)
    yield from _trigger_clashes(first, second)
    yield from _base_clashes(first, second)


def _token_clashes(first: FileIdentity, second: FileIdentity) -> Iterator[Clash]:
    shared = [token for token in first.tokens if token in second.tokens]
    if not shared:
        return
    tokens = ", ".join(shared)
    same = all(_equal(first.tokens[token], second.tokens[token]) for token in shared)
    message = f"{tokens} is a token of both, with {'the same' if same else 'different'} vectors"
    yield Clash("token", "strong", first.name, second.name, message, _renaming(second, shared[0]))


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def _renaming(file: FileIdentity, token: str) -> str:
    if not file.is_concept:
        return f"rename the embedding {token} in one of the two files, or leave one of them out"
    name = f"{token.strip('<>')[:62]}-2"
    return f"give one another name: orthoplex rename {file.argument} {name} --output {name}.safetensors"


def _trigger_clashes(first: FileIdentity, second: FileIdentity) -> Iterator[Clash]:
    """Equal phrases, or phrases with the same rare first word, as ``sks woman`` and ``sks man``."""
    for ours in first.triggers:
        for theirs in second.triggers:
            word = ours.split()[0]
            if ours != theirs and (word in _USUAL_WORDS or word != theirs.split()[0]):
                continue
            is_usual = all(part in _USUAL_WORDS for part in ours.split())
            called = ours if ours == theirs else f"{word} ({ours}; {theirs})"
            yield Clash(
                "trigger",
                "mild" if is_usual else "strong",
                first.name,
                second.name,
                f"both are called by {called}; a prompt calls both at once",
                "use one of them at a time, or train one with another trigger word",
            )
            return


def _base_clashes(first: FileIdentity, second: FileIdentity) -> Iterator[Clash]:
    pair = first.name, second.name
    kinds = [(first.family, second.family), (first.version, second.version)]
    for ours, theirs in kinds:
        if ours is None or theirs is None or ours == theirs:
            continue
        message = f"one is for {ours} and the other for {theirs}, which are different models"
        yield Clash("base", "strong", *pair, message, "merge files of one model only")
        return
    if first.base_hash and second.base_hash and first.base_hash != second.base_hash:
        message = f"the bases differ: '{first.checkpoint}' ({first.base_hash[:12]})"
        message += f" and '{second.checkpoint}' ({second.base_hash[:12]})"
        cure = "give --base to orthoplex merge: it takes concepts of the base's relatives, with a warning"
        yield Clash("base", "strong", *pair, message, cure)
        return
    for key in (key for key in first.architectures if key in second.architectures):
        ours, theirs = first.architectures[key], second.architectures[key]
        if _plain(key, ours) != _plain(key, theirs):
            message = f"{key} is {ours} and {theirs}"
            yield Clash("base", "strong", *pair, message, "merge files of one model only")
            return
    shared = [key for key in _HASHES if key in first.checkpoint_hashes and key in second.checkpoint_hashes]
    if any(first.checkpoint_hashes[key] != second.checkpoint_hashes[key] for key in shared):
        names = [file.checkpoint or file.checkpoint_hashes[shared[0]][:12] for file in (first, second)]
        message = f"they were trained on different checkpoints: {names[0]} and {names[1]}"
        yield Clash("base", "mild", *pair, message, "try each alone on the checkpoint that you will use")


def _plain(key: str, value: str) -> str:
    """A value without what says nothing of the base: ``stable-diffusion-xl-v1-base/lora`` ends with the adapter."""
    value = value.lower()
    return value.partition("/")[0] if key == "modelspec.architecture" else value
