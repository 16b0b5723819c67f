"""A LoRA file of another program as a concept of a base."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping

from orthoplex.concepts.base_identity import BaseIdentity
from orthoplex.concepts.concept import Concept
from orthoplex.concepts.exchange.detection import hinted_versions
from orthoplex.concepts.exchange.lora_file import LoraFile
from orthoplex.concepts.layer_table import layer_table
from orthoplex.concepts.manifest import Manifest, check_name, token_names
from orthoplex.concepts.tokens.token import Token
from orthoplex.concepts.tokens.vector import Vector
from orthoplex.concepts.whole_layers import WholeLayers
from orthoplex.errors import ConceptFileError

FOREIGN_METHOD = "foreign"
"""The method in the manifest of a concept that another program trained."""
_LOG = logging.getLogger(__name__)
_UNUSUAL = re.compile(r"[^a-z0-9_-]+")
_ALSO: Mapping[str, str] = {"vignette": "sd1"}
"""Version -> another that headers of files for it name."""


def foreign_concept(
    lora: LoraFile,
    base: BaseIdentity,
    *,
    name: str | None = None,
    kind: str = "other",
    class_word: str = "",
    trigger: str | None = None,
) -> Concept:
    """Return a LoRA file as a concept of a base: every change, and bundled embeddings as its tokens.

    A weight's change keeps the layer's name; a bias is a layer of its own, ``<layer>.bias``, of shape ``(n, 1)``, and
    so is the weight of a norm. Full differences become exact factors.

    Args:
        lora: The file.
        base: The base that it shall work on; no file names the one it was trained on surely.
        name: The concept's name; None makes one of the only embedding's token, else of the file's name.
        kind: One of ``KINDS``.
        class_word: The ordinary word for what it shows; files do not tell it.
        trigger: The prompt fragment that calls it; None takes that of the header (``modelspec.trigger_phrase``), else
            its tokens. Without any, it is empty: the file acts on every prompt.

    Raises:
        ConceptFileError: When the file changes nothing, is made for another family, or has embeddings for text encoders
            that the base does not have.
        ConfigurationError: When the name or kind is not allowed.
    """
    if name is None:
        name = concept_name(next(iter(lora.embeddings)) if len(lora.embeddings) == 1 else lora.name)
    check_name(name)
    _check_family(lora, base)
    layers, tokens = dict(WholeLayers(lora)), _tokens(lora, name, base)
    if not layers and not tokens:
        raise ConceptFileError(f"{lora.label}: changes no weight and has no embedding; allowed is at least one of them")
    for key, reason in lora.left_out.items():
        _LOG.warning("%s: %s is left out: %s", lora.label, key, reason)
    manifest = Manifest(
        name=name,
        kind=kind,
        class_word=class_word,
        trigger=_trigger(lora, name, bool(tokens)) if trigger is None else trigger,
        base=base,
        method=FOREIGN_METHOD,
        training={"file": lora.name, "style": lora.style},
    )
    return Concept(manifest, layers, tokens, path=lora.path)


def concept_name(name: str) -> str:
    """Return the concept name that the name of a file stands for, as in ``my-style-v1`` for ``My Style V1``."""
    return _UNUSUAL.sub("-", name.lower()).strip("-")[:64] or "lora"


def trigger_advice(metadata: Mapping[str, str]) -> str | None:
    """Return in words the tags that training pictures had most, for a file that tells no trigger; None if unknown.

    Args:
        metadata: The text pairs of the file's header.
    """
    try:
        folders = json.loads(metadata.get("ss_tag_frequency", "{}"))
        counts: dict[str, int] = {}
        for tags in folders.values():
            for tag, count in tags.items():
                counts[tag.strip()] = counts.get(tag.strip(), 0) + int(count)
    except (ValueError, AttributeError, TypeError):
        return None
    most = sorted(counts, key=lambda tag: (-counts[tag], tag))[:3]
    return f"the training pictures are tagged {', '.join(repr(tag) for tag in most)} most" if most else None


def _check_family(lora: LoraFile, base: BaseIdentity) -> None:
    """Refuse a file of another family; log a header that says another base."""
    table = layer_table(base.family)
    if lora.layers and lora.family is None:
        first = next(iter(lora.layers))
        raise ConceptFileError(
            f"{lora.label}: layer '{first}' and the others are named as in no known model; allowed for base {base} are "
            "files for its family"
        )
    if lora.version is not None and table is not None and lora.version not in table.versions:
        raise ConceptFileError(
            f"{lora.label}: is a LoRA for {lora.version}; base {base} takes those for {', '.join(table.versions)}"
        )
    if lora.version is None and table is not None and lora.family is not None and table.family != lora.family:
        raise ConceptFileError(f"{lora.label}: is a LoRA for {lora.family}; base {base} is of family {table.family}")
    said = hinted_versions(lora.metadata)
    if said and not {base.family, _ALSO.get(base.family)}.intersection(said):
        _LOG.warning(
            "%s: its header says that it is for %s, and base %s is another; compare pictures", lora.label, said[0], base
        )


def _tokens(lora: LoraFile, name: str, base: BaseIdentity) -> dict[str, Token]:
    """The bundled embeddings under the concept's name, in the order of the file."""
    table = layer_table(base.family)
    encoders = [part for part, role in table.components.items() if role == "text encoder"] if table else None
    rows: list[Token] = []
    for token in sorted(lora.embeddings, key=_by_number):
        parts = lora.embeddings[token]
        if encoders is not None and parts.keys() != set(encoders):
            raise ConceptFileError(
                f"{lora.label}: embedding '{token}' is for {', '.join(sorted(parts)) or 'no text encoder'}; base "
                f"{base} reads prompts by {', '.join(encoders)}"
            )
        lengths = {encoder: len(vectors) for encoder, vectors in parts.items()}
        if len(set(lengths.values())) != 1:
            shown = ", ".join(f"{count} for {encoder}" for encoder, count in lengths.items())
            raise ConceptFileError(
                f"{lora.label}: embedding '{token}' has {shown} vectors; allowed is one number of them"
            )
        rows += [
            Vector({encoder: vectors[i].float() for encoder, vectors in parts.items()})
            for i in range(next(iter(lengths.values())))
        ]
    return dict(zip(token_names(name, len(rows)), rows, strict=True)) if rows else {}


def _by_number(token: str) -> tuple[tuple[str, int], ...]:
    """The order of ``<a>``, ``<a>_2``, ``<a>_10``: numbers in names count as numbers."""
    return tuple((words, int(number or 0)) for words, number in re.findall(r"([^0-9]*)([0-9]*)", token))


def _trigger(lora: LoraFile, name: str, has_tokens: bool) -> str:
    """The trigger that the header tells, with the concept's own token in the place of the embeddings' names."""
    trigger = " ".join(lora.metadata.get("modelspec.trigger_phrase", "").split())
    if not has_tokens:
        return trigger
    names = sorted(lora.embeddings, key=len, reverse=True)
    spelled = "|".join(re.escape(part) for token in names for part in (f"<{token.strip('<>')}>", token))
    own = re.sub(rf"(?<!\w)(?:{spelled})(?!\w)", f"<{name}>", trigger)
    own = re.sub(rf"(?:<{re.escape(name)}>\s*)+", f"<{name}> ", own).strip()
    return own if f"<{name}>" in own else f"<{name}> {own}".strip()
