"""Readers of text alignment: they compare pictures with the part of a prompt besides the concept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import final

from torch import Tensor, cat, stack

from orthoplex.activations import insert_trigger, with_article
from orthoplex.benchmark.measurement import TextValue
from orthoplex.benchmark.settings import PLACEHOLDER, EncoderSettings
from orthoplex.benchmark.sources import ConceptSource, open_pictures
from orthoplex.benchmark.workspace import PictureSet, Workspace
from orthoplex.errors import ConfigurationError
from orthoplex.evaluation import (
    TEXT_PREFIX,
    ClipEncoder,
    Encoder,
    LinearHead,
    MobileNetEncoder,
    above_chance,
    asked_for,
    load_head,
    shows,
    text_scores,
)
from orthoplex.models import Base
from orthoplex.training import DataFolder

FACTORS = ("scene", "style")
"""Factors that heads read; a concept that is itself such a factor is not read for it."""


class TextReader(ABC):
    """Reads off pictures if they show the rest of their prompt, besides the concept.

    Attributes:
        name: The method of reading, for reports.
        encoder: The encoder of the features it reads.
    """

    name: str
    encoder: Encoder

    @abstractmethod
    def values(self, features: Tensor, template: str, source: ConceptSource) -> tuple[Tensor, Tensor | None] | None:
        """Return the alignment of every picture with its prompt, `(n,)`; None if the prompt asks for nothing readable.

        The second tensor is the same among the names that prompts ask for, chance taken off; None for a single name.

        Args:
            features: `(n, d)` of the pictures of one prompt.
            template: The prompt, with a placeholder in the concept's place.
            source: The concept.
        """

    def mean(
        self, sets: Sequence[PictureSet], templates: Sequence[str], source: ConceptSource, workspace: Workspace
    ) -> TextValue | None:
        """Return the mean over the pictures of all prompts that ask for something; None without such prompts.

        Args:
            sets: The pictures, one set for each template in turn, once or several times over.
            templates: The prompts, with a placeholder in the concept's place.
            source: The concept.
            workspace: The work folder that stores features.
        """
        readings = [
            self.values(workspace.features(pictures, self.encoder), template, source)
            for template, pictures in zip(cycle(templates), sets, strict=False)
        ]
        return _mean([reading for reading in readings if reading is not None])

    def real(self, source: ConceptSource) -> float | None:
        """Return the alignment of a concept's real pictures with their captions; None if they ask for nothing readable.

        It is the upper limit for this concept: a painting style may hide scenes from any reader.
        """
        split = source.split()
        written = {picture.path: picture.captions for picture in DataFolder.scan(source.folder).pictures}
        captions = {}
        for path in (*split.training, *split.held_out):
            if first := "".join(written.get(path, ())[:1]).partition("\n")[0].strip():
                word, token = source.class_word, source.token
                captions[path] = insert_trigger(first, token=token, class_word=word, trigger=PLACEHOLDER)
        if not captions:
            return None
        features = self.encoder.encode(open_pictures(list(captions)))
        rows = zip(features.split(1), captions.values(), strict=True)
        readings = [self.values(row, template, source) for row, template in rows]
        value = _mean([reading for reading in readings if reading is not None])
        return value.text if value else None


def _mean(readings: Sequence[tuple[Tensor, Tensor | None]]) -> TextValue | None:
    if not readings:
        return None
    values, choices = [value for value, _ in readings], [choice for _, choice in readings if choice is not None]
    return TextValue(float(cat(values).mean()), float(cat(choices).mean()) if choices else None)


@final
class HeadReader(TextReader):
    """Reads scene and painting style with linear heads (`orthoplex.evaluation.shows`).

    A prompt asks for what it names; one that names no painting style does not ask for a photo. Where it asks for a
    scene and a style, each is half of the picture's value.

    Args:
        heads: Factor -> its head.
        encoder: The encoder of the features that the heads read.
        prompts: Kind -> prompts of the measured kinds; `TextValue.choice` chooses among the names they ask for.

    Raises:
        ConfigurationError: when a head was fitted on features of another encoder.
    """

    def __init__(self, heads: Mapping[str, LinearHead], encoder: Encoder, prompts: Mapping[str, Sequence[str]]) -> None:
        for factor, head in heads.items():
            if head.encoder != encoder.name:
                raise ConfigurationError(f"the head for {factor} reads {encoder.name}; allowed: {head.encoder}")
        self.heads, self.encoder = heads, encoder
        self.name = f"{' and '.join(heads)} that linear heads read off {encoder.name}"
        asked = [self.asked(prompt, kind) for kind, templates in prompts.items() for prompt in templates]
        self.choices = {
            factor: tuple(sorted({names[factor] for names in asked if factor in names})) for factor in heads
        }

    def asked(self, template: str, kind: str) -> dict[str, str]:
        """Factor -> the name that a prompt asks for, but the concept's own factor."""
        named = {factor: asked_for(template, head.classes) for factor, head in self.heads.items() if factor != kind}
        return {factor: name for factor, name in named.items() if name is not None}

    def values(self, features: Tensor, template: str, source: ConceptSource) -> tuple[Tensor, Tensor | None] | None:
        """Share of the names asked for that are the heads' best ones, a picture each."""
        right, chosen = [], []
        for factor, name in self.asked(template, source.kind).items():
            head, names = self.heads[factor], self.choices[factor]
            right.append(shows(head, features, name))
            if name in names and len(names) > 1:
                chosen.append(above_chance(shows(head, features, name, among=names), len(names)))
        return (stack(right).mean(dim=0), stack(chosen).mean(dim=0) if chosen else None) if right else None


@final
class ClipReader(TextReader):
    """Reads the whole prompt, the class word in the concept's place (`orthoplex.evaluation.text_scores`).

    Args:
        encoder: Encodes pictures and texts.
    """

    def __init__(self, encoder: ClipEncoder) -> None:
        self.encoder, self._clip = encoder, encoder
        self.name = f"2.5 times the cosine with the prompt, {encoder.name}"

    def values(self, features: Tensor, template: str, source: ConceptSource) -> tuple[Tensor, None]:
        """2.5 times the cosine above 0 with the prompt, a picture each; there are no names to choose among."""
        prompt = template.replace(PLACEHOLDER, with_article(source.class_word))
        return text_scores(features, self._clip.encode_texts([TEXT_PREFIX + prompt])), None


def text_reader(encoder: Encoder, base: Base, prompts: Mapping[str, Sequence[str]]) -> TextReader | None:
    """Return the reader of text alignment of an encoder on a base.

    CLIP reads it on any base. With MobileNet, heads do on a base that brings them, whose scenes and styles they know,
    on features of the layer and size that they were fitted on; None on other bases, and with other encoders.

    Args:
        encoder: The experiment's.
        base: The experiment's.
        prompts: Kind -> the prompts of the measured kinds.
    """
    if isinstance(encoder, ClipEncoder):
        return ClipReader(encoder)
    if not base.brought.heads or not isinstance(encoder, MobileNetEncoder):
        return None
    heads = {factor: load_head(base.brought.heads[factor]) for factor in FACTORS}
    fitting = all(head.encoder == encoder.name for head in heads.values())
    return HeadReader(heads, encoder if fitting else EncoderSettings().build(), prompts)
