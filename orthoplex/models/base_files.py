"""A base as files: a merge is folded into a copy of its folder, and no network is built for it.

That is possible for folders as we write them (``folder_content``), the embedded base among them, and takes a fraction
of the time, most of which goes to importing what builds networks. Folders of other tools are loaded instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from orthoplex.concepts import BaseIdentity
from orthoplex.errors import BaseModelError
from orthoplex.files import Header, read_json
from orthoplex.models.base_choice import BaseName
from orthoplex.models.base_place import base_place
from orthoplex.models.families import folder_form
from orthoplex.models.families.form_of_folders import FolderForm, FolderReader
from orthoplex.models.folder_content import check_dtype, forget_machine, write_config
from orthoplex.models.hash_cache import fingerprint, recall
from orthoplex.models.pipeline_folder import INDEX_NAME, pipeline_folder
from orthoplex.models.streamed_identity import streamed_hash
from orthoplex.models.versions import EMBEDDED
from orthoplex.models.weight_files import find_weights, read_headers, stem, stored_dtype, write_weights
from orthoplex.models.weights import Foldable, check_base, chosen_weights, matrix_shape

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


@final
@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of a tokenizer.

    Attributes:
        values: The values of its ``tokenizer.json``.
    """

    values: Mapping[str, Any]

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Every token that the tokenizer knows, and its number."""
        return self.values["model"]["vocab"] | {token["content"]: token["id"] for token in self.values["added_tokens"]}

    @property
    def is_dense(self) -> bool:
        """True if the numbers are all from 0 to the last."""
        return sorted(self.numbers.values()) == list(range(len(self.numbers)))

    def next_numbers(self, tokens: Iterable[str]) -> dict[str, int]:
        """Return new tokens with the numbers that follow the last."""
        return {token: number for number, token in enumerate(tokens, start=len(self.numbers))}


@final
@dataclass(frozen=True)
class BaseFiles:
    """A pipeline folder as we write it.

    Attributes:
        folder: The folder.
        form: What folders of its family hold.
        identity: Which base it is.
        files: Changed component to its one weights file.
        headers: The same to the header of it.
    """

    folder: Path
    form: FolderForm
    identity: BaseIdentity
    files: Mapping[str, Path]
    headers: Mapping[str, Header]

    @staticmethod
    def of(name_or_path: BaseName) -> BaseFiles | None:
        """Look at a folder, or at the embedded base by its name; None for what has to be loaded.

        A folder has to be loaded once, by which its weights are checked and its hash is remembered.

        Args:
            name_or_path: As for ``load_base``.
        """
        try:
            place = base_place(name_or_path)
        except BaseModelError:
            return None
        embedded, folder = place.is_embedded, place.folder
        if place.held or place.choice.variant is not None:
            return None
        try:
            index = read_json(folder / INDEX_NAME)
            form = folder_form(index["_class_name"])
            if form is None:
                return None
            configs = _configs(form)
            tokenizers = {reader.tokenizer for reader in form.readers}
            config = {
                name: read_json(folder / name / files[0]) for name, files in configs.items() if name not in tokenizers
            }
            whole = all((folder / name / file).is_file() for name, files in configs.items() for file in files)
            version = form.version(config)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        stems = {name: stem(name) for name in (*form.changed, *form.unchanged)}
        parts = {name for name, value in index.items() if isinstance(value, list) and value[:1] != [None]}
        weight_files = {name: find_weights(folder / name, name) for name in stems}
        headers = {name: read_headers(files) for name, files in weight_files.items()}
        single = {name: one for name, files in headers.items() if files and len(files) == 1 for one in files.items()}
        named = {name: path.name.removesuffix(".safetensors") for name, (path, _) in single.items()}
        portable = named == stems and all(each.embedding in single[each.encoder][1].entries for each in form.readers)
        plain = all(config[each.encoder].get("torch_dtype") == "float32" for each in form.readers)
        if not (whole and portable and plain and parts == configs.keys()):
            return None
        changed = {name: single[name] for name in form.changed}
        digest = _digest(changed, embedded=embedded)
        if digest is None:
            return None
        identity = BaseIdentity(family=EMBEDDED if embedded else version, hash=digest, name=place.name)
        files = {name: path for name, (path, _) in changed.items()}
        return BaseFiles(folder, form, identity, files, {name: header for name, (_, header) in changed.items()})

    @cached_property
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        """Text encoder to the words of its tokenizer."""
        return {
            reader.encoder: Vocabulary(read_json(self.folder / reader.tokenizer / _TOKENIZER[0]))
            for reader in self.form.readers
        }

    def takes(self, change: Foldable) -> bool:
        """Return True if a change can be folded into the files; else a loaded base says why, or can do more.

        A merge can if each of its concepts can.
        """
        for layer, part in change.layers.items():
            component, name = _place(layer)
            entry = self.headers[component].entries.get(name) if component in self.headers else None
            if entry is None or ".embeddings." in name or matrix_shape(entry.shape) != part.shape:
                return False
        widths = {
            reader.encoder: self.headers[reader.encoder].entries[reader.embedding].shape[1:]
            for reader in self.form.readers
        }
        words = self.vocabularies.values()
        return all(vocabulary.is_dense for vocabulary in words) and all(
            all(token not in vocabulary.numbers for vocabulary in words)
            and item.placement.is_one_vector
            and {encoder: tuple(row.shape) for encoder, row in item.placement.vectors.items()} == widths
            for token, item in change.tokens.items()
        )

    @torch.no_grad()
    def write(
        self, change: Foldable, folder: Path, *, overwrite: bool = False, dtype: torch.dtype | None = None
    ) -> Path:
        """Write the folder with a change folded in, and ``recipe.json``.

        ``W' = round(W + up · diag(s) · down)``, float32 accumulation, one rounding.

        Args:
            change: A change that ``takes`` agrees to.
            folder: A new or empty folder.
            overwrite: Replace a folder that holds something.
            dtype: The type of all weights in the files, float16, bfloat16 or float32; None keeps that of each file.

        Raises:
            BaseModelError: If the change names another base or none.
            ConfigurationError: If the folder holds something and ``overwrite`` is False, the type is another, or a
                number is too large.
            OutputError: If it cannot be written.
        """
        check_dtype(dtype)
        check_base(change.recipe, self.identity)
        weights = {name: load_file(path) for name, path in self.files.items()}
        for name, values in self._folded(change).items():
            component, tensor = _place(name)
            weights[component][tensor] = values
        for encoder, embedding in ((reader.encoder, reader.embedding) for reader in self.form.readers):
            ids = self.vocabularies[encoder].next_numbers(change.tokens)
            rows = [(ids[token], item.placement.vectors[encoder]) for token, item in change.tokens.items()]
            weights[encoder][embedding] = _extended(weights[encoder][embedding], rows)
        with pipeline_folder(folder, recipe=change.recipe.to_json(), overwrite=overwrite) as temporary:
            temporary.mkdir()
            shutil.copyfile(self.folder / INDEX_NAME, temporary / INDEX_NAME)
            for name, files in _configs(self.form).items():
                (temporary / name).mkdir()
                for file in files:
                    shutil.copyfile(self.folder / name / file, temporary / name / file)
            for name in self.form.unchanged:
                source, target = (place / name / f"{stem(name)}.safetensors" for place in (self.folder, temporary))
                if dtype is None:
                    shutil.copyfile(source, target)
                else:
                    write_weights(load_file(source), target, dtype)
            for name, path in self.files.items():
                write_weights(
                    weights[name], temporary / name / path.name, dtype or stored_dtype({path: self.headers[name]})
                )
            for path in temporary.rglob("*.json"):
                forget_machine(path)
            for reader in self.form.readers if change.tokens else ():
                self._add_tokens(temporary, reader, [*change.tokens], len(weights[reader.encoder][reader.embedding]))
        return folder.resolve()

    def _folded(self, change: Foldable) -> dict[str, Tensor]:
        """The changed weights, float32, by layer."""
        layers: dict[str, nn.Module] = {}
        shapes: dict[str, torch.Size] = {}
        for component, path in self.files.items():
            with safe_open(path, "pt") as file:
                for layer in (layer for layer in change.layers if _place(layer)[0] == component):
                    shell, values = nn.Linear(1, 1, bias=False, device="meta"), file.get_tensor(_place(layer)[1])
                    shapes[layer] = values.shape
                    matrix = values.float().reshape(matrix_shape(values.shape))
                    shell.weight = nn.Parameter(matrix, requires_grad=False)
                    layers[layer] = shell
        chosen_weights(layers, change, unmerged=False)
        return {layer: shell.get_parameter("weight").data.view(shapes[layer]) for layer, shell in layers.items()}

    def _add_tokens(self, folder: Path, reader: FolderReader, tokens: Sequence[str], rows: int) -> None:
        """Let tokenizer and configuration of a text encoder of a folder know new tokens."""
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        vocabulary = self.vocabularies[reader.encoder]
        ids = vocabulary.next_numbers(tokens)
        added = [{"id": number, "content": token, **plain} for token, number in ids.items()]
        known = vocabulary.values["added_tokens"]
        place = folder / reader.tokenizer
        write_config(place / _TOKENIZER[0], {**vocabulary.values, "added_tokens": [*known, *added]}, sort=False)
        path = place / _TOKENIZER[1]
        config = read_json(path)
        decoder = config.get("added_tokens_decoder", {}) | {
            str(number): {"content": token, **plain} for token, number in ids.items()
        }
        write_config(path, config | {"added_tokens_decoder": decoder})
        path = folder / reader.encoder / "config.json"
        write_config(path, read_json(path) | {"vocab_size": rows})


def _digest(changed: Mapping[str, tuple[Path, Header]], *, embedded: bool) -> str | None:
    """The hash of the base: remembered from loading it, or, of the embedded one, whose files are known, streamed."""
    before = fingerprint({component: path for component, (path, _) in changed.items()})
    known = None if before is None else recall(before)
    if known is None and embedded:
        return streamed_hash({name: {path: header} for name, (path, header) in changed.items()})
    return known


def _place(layer: str) -> tuple[str, str]:
    """A layer's component, and what its weight is called in the component's file; a bias is a layer of its own."""
    component, _, path = layer.partition(".")
    return component, path if path.endswith(".bias") else f"{path}.weight"


def _configs(form: FolderForm) -> dict[str, tuple[str, ...]]:
    """Component to its files besides weights, the configuration first."""
    weighed = dict.fromkeys((*form.changed, *form.unchanged), ("config.json",))
    tokenizers = {reader.tokenizer: _TOKENIZER for reader in form.readers}
    return {"scheduler": ("scheduler_config.json",), **tokenizers, **weighed}


def _extended(table: Tensor, rows: Sequence[tuple[int, Tensor]]) -> Tensor:
    """The embedding with rows for new tokens, float32: numbers that the file's type cannot hold are refused later."""
    count = max([len(table), *(number + 1 for number, _ in rows)])
    extended = torch.zeros(count, table.shape[1])
    extended[: len(table)] = table
    for number, vector in rows:
        extended[number] = vector
    return extended
