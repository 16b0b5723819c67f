"""What a LoRA file says about itself, from its header and the numbers alpha alone; read without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from orthoplex.concepts.exchange.client_rules import readers, readers_in_words
from orthoplex.concepts.exchange.contents import LoraContents, lora_contents, reasons_in_words
from orthoplex.concepts.exchange.payloads import PAYLOADS
from orthoplex.concepts.exchange.styles import STYLES
from orthoplex.concepts.layer_table import component_of
from orthoplex.files import parse_json

_TRAINERS = {
    "ot_branch": "OneTrainer",
    "ot_revision": "OneTrainer",
    "simpletuner_version": "SimpleTuner",
    "ss_sd_scripts_commit_hash": "sd-scripts",
    "ss_musubi_tuner_version": "musubi-tuner",
}
"""Key of a header -> the program that writes it."""
_TRAINING = (
    *("modelspec.title", "modelspec.author", "modelspec.architecture", "modelspec.date", "modelspec.prediction_type"),
    *("ss_output_name", "ss_base_model_version", "ss_sd_model_name", "ss_sd_model_hash", "ss_network_module"),
    *("ss_network_dim", "ss_network_alpha", "ss_num_train_images", "ss_steps", "ss_max_train_steps", "ss_num_epochs"),
    *("ss_learning_rate", "ss_unet_lr", "ss_text_encoder_lr", "ss_optimizer", "ss_resolution", "ss_seed"),
    *("ss_training_comment", "ss_v2", "ss_v_parameterization"),
)
"""Keys of a header that people ask for."""
_MOST_TAGS = 8
_RECIPE = "orthoplex_recipe"
"""Key of the recipe in the header of a file that ``orthoplex merge`` wrote."""


@final
@dataclass(frozen=True)
class LoraSummary:
    """A LoRA file in words and counts.

    Attributes:
        path: The file.
        file_bytes: Its size.
        style: A name in ``STYLES``.
        family: The family; None if no table knows the layers.
        version: Its version.
        num_tensors: Tensors in the file.
        layers: Component to the number of its changed layers and parameters.
        payloads: Kind of payload to the number of modules.
        ranks: Rank to the number of modules.
        alphas: Alpha in words or as a number, to the number of modules.
        types: Data type to the number of tensors.
        trainer: The program that trained it; empty if nothing says it.
        merge: The recipe of a merged file in a line; empty for others.
        triggers: Words for prompts.
        tags: The most frequent tags of its captions.
        training: Key of the header to its text, for those that people ask for.
        embeddings: Tokens with embeddings.
        problem: Why the file cannot be read at all; empty if it can.
        refused: Key to the reason why it cannot be read.
        readers: Program to what it would not read of the file, or read wrongly; empty where nothing is known.
    """

    path: str
    file_bytes: int
    style: str
    family: str | None
    version: str | None
    num_tensors: int
    layers: Mapping[str, int]
    payloads: Mapping[str, int]
    ranks: Mapping[int, int]
    alphas: Mapping[str, int]
    types: Mapping[str, int]
    trainer: str
    merge: str
    triggers: tuple[str, ...]
    tags: tuple[str, ...]
    training: Mapping[str, str]
    embeddings: tuple[str, ...]
    problem: str
    refused: Mapping[str, str]
    readers: Mapping[str, Sequence[str]]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return names and texts for people."""
        version = self.version or "sizes of its own, which no published version has"
        family = "unknown: no layer table has its layers" if self.family is None else f"{self.family} ({version})"
        changes = [
            ("style", f"{self.style}: {STYLES[self.style].description}"),
            ("family", self.problem or family),
            ("layers", _counted(self.layers, "{count} in {value}")),
            ("payloads", _counted({PAYLOADS[name].description: n for name, n in self.payloads.items()})),
            ("ranks", _counted(self.ranks)),
            ("alphas", _counted(self.alphas)),
        ]
        rows = [
            *(changes if self.layers or self.problem or self.refused else [("kind", "textual-inversion embedding")]),
            ("types", _counted(self.types)),
            ("trained by", self.trainer or ("nobody: it is a merge" if self.merge else "unknown")),
            ("merged from", self.merge),
            ("triggers", ", ".join(self.triggers) or "none given"),
            ("tags", ", ".join(self.tags)),
            ("embeddings", ", ".join(self.embeddings) or "none"),
            *((key, value) for key, value in self.training.items()),
            ("read whole by", readers_in_words(self.readers)),
            ("not readable", reasons_in_words(self.refused) or "nothing: every key is read"),
        ]
        return [(name, text) for name, text in rows if text]


def lora_summary(path: Path, family: str | None = None) -> LoraSummary:
    """Read what a LoRA file says about itself.

    Args:
        path: The file, or a folder that PEFT wrote.
        family: The family or version to take, by name; None finds it.

    Raises:
        ConfigurationError: If there is no such family.
        FileFormatError: If the file is missing or damaged, or is no LoRA file.
    """
    contents = lora_contents(path, family)
    metadata = contents.header.metadata
    sources = {**contents.layers, **contents.differences}
    modules = {id(source.module): source.module for source in sources.values()}.values()
    ranked = [module for module in modules if module.form.rank is not None]
    return LoraSummary(
        path=str(path),
        file_bytes=contents.header.file_bytes,
        style=contents.detected.style,
        family=contents.detected.family,
        version=contents.detected.version,
        num_tensors=len(contents.header.entries),
        layers=_most(component_of(name) if contents.detected.family else "modules" for name in sources),
        payloads=_most(module.payload for module in modules),
        ranks=dict(sorted(Counter(module.form.rank for module in ranked if module.form.rank is not None).items())),
        alphas=_most(_alpha(contents, module.name, module.form.rank) for module in ranked),
        types=_most(entry.dtype for entry in contents.header.entries.values()),
        trainer=_trainer(contents),
        merge=_merge(_json(metadata.get(_RECIPE, ""))),
        triggers=_triggers(metadata),
        tags=_tags(metadata),
        training={key: metadata[key] for key in _TRAINING if metadata.get(key) not in (None, "", "None")},
        embeddings=tuple(dict.fromkeys(place.token for place in contents.embeddings.values())),
        problem=contents.problem,
        refused=contents.refused,
        readers=_readers(contents),
    )


def _readers(contents: LoraContents) -> Mapping[str, Sequence[str]]:
    """Which programs read the file; none where its family is unknown, or it holds embeddings alone."""
    family = contents.detected.family
    if family is None or not (contents.layers or contents.differences):
        return {}
    return readers(contents.header, family, contents.alphas)


def _alpha(contents: LoraContents, module: str, rank: int | None) -> str:
    alpha = contents.alphas.get(module)
    if alpha is None:
        factor = contents.factors.get(module)
        return "none in the file (the rank)" if factor is None else f"factor {factor:g} in the metadata"
    return "the rank" if alpha == rank else f"{alpha:g}"


def _most(values: Any) -> dict[str, int]:  # noqa: ANN401 - any iterable of texts
    return dict(Counter(values).most_common())


def _trainer(contents: LoraContents) -> str:
    metadata = contents.header.metadata
    software = _json(metadata.get("software", ""))
    if isinstance(software, dict) and "name" in software:
        return " ".join(str(software[key]) for key in ("name", "version") if key in software)
    known = next((name for key, name in _TRAINERS.items() if key in metadata), "")
    module = metadata.get("ss_network_module", "")
    if not known and module:
        known = "LyCORIS in sd-scripts" if "lycoris" in module else "sd-scripts or musubi-tuner"
    implementation = metadata.get("modelspec.implementation", "")
    return known or implementation.rsplit("/", 1)[-1]


def _merge(recipe: Any) -> str:  # noqa: ANN401 - JSON
    """A recipe in a line: the algorithm, and the files with their strengths."""
    if not isinstance(recipe, dict):
        return ""
    items = [item for item in recipe.get("files") or recipe.get("concepts") or () if isinstance(item, dict)]
    files = (f"{item.get('name')} ({item.get('strengths', item.get('strength'))})" for item in items)
    scale = "" if recipe.get("scale", 1) == 1 else f", all times {recipe['scale']}"
    return f"{recipe.get('algorithm')} of {', '.join(files)}{scale}"


def _triggers(metadata: Mapping[str, str]) -> tuple[str, ...]:
    texts = [metadata.get(key, "") for key in ("modelspec.trigger_phrase", "ss_trigger_word", "trigger_word")]
    return tuple(dict.fromkeys(text for text in texts if text and text != "None"))


def _tags(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The most frequent tags of all folders."""
    folders = _json(metadata.get("ss_tag_frequency", ""))
    counts: Counter[str] = Counter()
    for tags in folders.values() if isinstance(folders, dict) else ():
        if isinstance(tags, dict):
            counts.update({str(tag).strip(): n for tag, n in tags.items() if isinstance(n, int)})
    return tuple(tag for tag, _ in counts.most_common(_MOST_TAGS))


def _json(text: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return parse_json(text) if text else None
    except ValueError:
        return None


def _counted(counts: Mapping[Any, int], form: str = "{value} ({count})") -> str:
    """The values with their counts; a single value without."""
    if len(counts) == 1 and "{value} (" in form:
        return str(next(iter(counts)))
    return ", ".join(form.format(value=value, count=count) for value, count in counts.items()) or "none"
