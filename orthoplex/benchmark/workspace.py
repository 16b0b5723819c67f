"""A work folder that caches trained concepts, pictures and features.

The name of an entry is the SHA-256 of everything that decides its content. Entries appear whole or not at all. So a
stopped run continues where it stopped, and a changed option computes only the entries that depend on it. An entry that
a full or failing disk damaged is noticed when it is read, removed with a warning, and made again. A change of the code
is not noticed: count up `CACHE_VERSION` after one, or use another folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from orthoplex.activations import default_foreign_prompts, gather_grams, with_erasure
from orthoplex.benchmark.events import BenchmarkEvent
from orthoplex.benchmark.settings import PictureSettings
from orthoplex.benchmark.sources import ConceptSource, open_pictures, training_folder
from orthoplex.concepts import load_concept, save_concept
from orthoplex.errors import ConceptFileError
from orthoplex.evaluation import Encoder, halves
from orthoplex.files import folder_made_once, read_json, write_json, write_tensors
from orthoplex.generation import generate
from orthoplex.merging import Merge
from orthoplex.models import Base, Foldable, chosen_precision
from orthoplex.training import ConceptDataset, TrainingConfig, train

CACHE_VERSION = 5
POLL_SECONDS = 1.0
_LOG = logging.getLogger(__name__)
_Read = TypeVar("_Read")
_Settings = TypeVar("_Settings", TrainingConfig, PictureSettings)


@dataclass(frozen=True)
class TrainedConcept:
    """A concept file in the work folder.

    Attributes:
        path: The file.
        seconds: Wall time of its training, over all sessions.
    """

    path: Path
    seconds: float


@dataclass(frozen=True, eq=False)
class Gathered:
    """Gram matrices of layers' inputs, stored in the work folder.

    Attributes:
        grams: Layer -> Gram matrix of its inputs.
        seconds: Wall time of making them.
    """

    grams: Mapping[str, Tensor]
    seconds: float


@dataclass(frozen=True)
class PictureSet:
    """The pictures of one prompt.

    Attributes:
        prompt: The prompt.
        folder: Where they lie, `000.png`, `001.png`, ...
        files: The pictures.
        seconds: Wall time of making them.
    """

    prompt: str
    folder: Path
    files: tuple[Path, ...]
    seconds: float

    def open(self) -> list[Image.Image]:
        """Read the pictures."""
        return open_pictures(self.files)


class Workspace:
    """One base model and the folder of everything made with it.

    Args:
        base: The base model; folded and restored, never changed for good.
        folder: The work folder; made when missing.
    """

    def __init__(self, base: Base, folder: Path) -> None:
        self.base, self.folder = base, folder
        self._inputs = base.family.inputs_hash()
        self._outputs = base.family.outputs_hash()

    def concept(
        self, source: ConceptSource, config: TrainingConfig, *, resolution: int, message: str
    ) -> Generator[BenchmarkEvent, None, TrainedConcept]:
        """Train a concept, continue its interrupted training, or take it from the folder; yields the training steps.

        If another process trains the concept at the same time, this call waits for it. Closed-form erasure at the end
        is solved on the concept trained without it, so one training serves every weight of erasure.

        Args:
            source: The concept; its training pictures are used, the held-out pictures are not.
            config: The training configuration.
            resolution: Side of the pictures in pixels.
            message: The message of the events.

        Returns:
            The file, and the seconds of training.

        Raises:
            KeyboardInterrupt: when the training was interrupted; the next call goes on from its checkpoint.
        """
        config = self._settled(config)
        dataset = ConceptDataset.from_folder(
            training_folder(source, self.folder),
            resolution=resolution,
            token=source.token,
            class_word=source.class_word,
            kind=source.kind,
            trigger_form=config.trigger_form,
        )
        # new tokens take their spread from these prompts, too; those that come with a base are always the same
        decide = config.uses_foreign_prompts or not self.base.brought.foreign_prompts
        foreign = list(default_foreign_prompts(self.base)) if decide else []
        decisive = {"training": _decisive_options(config), "dataset": dataset.dataset_hash, "name": source.name}
        request = {**decisive, "foreign_prompts": content_key({"prompts": foreign}), **_own_rate(config)}
        folder = self.folder / "concepts" / f"{source.name}-{self._key(request)}"
        output, seconds = folder / f"{source.name}.safetensors", folder / "seconds.json"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0, thread_local=False)
        while not _acquired(lock):
            yield BenchmarkEvent("train", 0, config.steps, f"{message}: waiting for another process")
            time.sleep(POLL_SECONDS)
        try:
            if _whole(output, load_concept, seconds) is None:  # looked at under the lock: another may have finished it
                write_json(folder / "request.json", request)
                if config.solves_at_end:
                    plain = config.while_training
                    trained = yield from self.concept(source, plain, resolution=resolution, message=message)
                    return self._with_erasure(trained, config, output, seconds)
                training = train(self.base, dataset, config, output=output, resume=True, keep_checkpoint=False)
                with _Clock(seconds), closing(training) as records:
                    for record in records:
                        yield BenchmarkEvent("train", record.step, record.steps, message)
                if not output.is_file():  # Ctrl-C: the training kept its checkpoint and ended in good order
                    raise KeyboardInterrupt
        finally:
            lock.release()
        return TrainedConcept(output, _read_seconds(seconds))

    def _with_erasure(
        self, trained: TrainedConcept, config: TrainingConfig, output: Path, seconds: Path
    ) -> TrainedConcept:
        """Apply closed-form erasure to a trained concept and write it; its time is added to that of the training."""
        started = time.perf_counter()
        concept = with_erasure(self.base, load_concept(trained.path, base=self.base.identity), config.erasure_options)
        write_json(seconds, {"seconds": trained.seconds + time.perf_counter() - started})
        save_concept(concept, output)
        return TrainedConcept(output, _read_seconds(seconds))

    def pictures(
        self, merge: Merge | None, prompts: Sequence[str], settings: PictureSettings, *, message: str
    ) -> Generator[BenchmarkEvent, None, tuple[PictureSet, ...]]:
        """Make or find the pictures of prompts; yields one event for each prompt that was made.

        The merge is folded once for every missing prompt. Between two events the base is unchanged.

        Args:
            merge: The merge to fold into the base; None for the base alone.
            prompts: The prompts.
            settings: Options of the pictures.
            message: The message of the events.

        Returns:
            One set for each prompt, in their order.
        """
        settings = self._settled(settings)
        folders = [self._picture_folder(merge, prompt, settings) for prompt in prompts]
        wanted = dict(zip(folders, prompts, strict=True))
        stored = {folder: _whole(folder, _read_set) for folder in wanted}
        missing = {folder: prompt for folder, prompt in wanted.items() if stored[folder] is None}
        if missing:
            for done, (folder, prompt) in enumerate(missing.items(), start=1):
                self._make_pictures(folder, prompt, settings, merge)
                yield BenchmarkEvent("pictures", done, len(missing), message)
        return tuple(stored[folder] or _read_set(folder) for folder in folders)

    def features(self, pictures: PictureSet, encoder: Encoder) -> Tensor:
        """The encoder's features of a set, `(n, d)`, kept beside the pictures."""
        return self._encoded(pictures.folder / f"{encoder.name}.safetensors", lambda: encoder.encode(pictures.open()))

    def views(self, pictures: PictureSet, encoder: Encoder) -> Tensor:
        """The encoder's features of a set's pictures, their left parts and their right parts, `(3, n, d)`; kept."""

        def encode() -> Tensor:
            whole = pictures.open()
            left, right = zip(*map(halves, whole), strict=True)
            return torch.stack([encoder.encode(part) for part in (whole, left, right)])

        return self._encoded(pictures.folder / f"{encoder.name}-views.safetensors", encode)

    def _encoded(self, path: Path, encode: Callable[[], Tensor]) -> Tensor:
        features = _whole(path, lambda file: load_file(file)["features"])
        if features is None:
            features = encode()
            write_tensors({"features": features}, path)
        return features

    def grams(self, change: Foldable | None, layers: Sequence[str], prompts: Sequence[str]) -> Gathered:
        """Gram matrices of layers' inputs (`orthoplex.activations.gather_grams`), made once and kept."""
        key = self._key({"grams": _decisive(change), "layers": list(layers), "prompts": list(prompts)})
        path = self.folder / "grams" / f"{key}.safetensors"
        stored = _whole(path, _read_gathered)
        if stored is None:
            started = time.perf_counter()
            grams = gather_grams(self.base, layers, prompts, change=change)
            stored = Gathered(grams, time.perf_counter() - started)
            write_tensors(grams, path, {"seconds": str(stored.seconds)})
        return stored

    def merge_seconds(self, merge: Merge, spent: float) -> float:
        """Return the seconds of the first merge of this kind; `spent`, which is then recorded, if this is the first."""
        path = self.folder / "merges" / f"{self._key({'seconds of': _decisive(merge)})}.json"
        recorded = _read_seconds(path)
        if not recorded:
            write_json(path, {"seconds": spent})
        return recorded or spent

    def _settled(self, settings: _Settings) -> _Settings:
        """Return settings with the precision that `auto` means on this machine; it is part of an entry's name."""
        return replace(settings, mixed_precision=chosen_precision(settings.mixed_precision, self.base.device))

    def _key(self, request: Mapping[str, Any]) -> str:
        base = {"base": self.base.identity.hash, "inputs": self._inputs}
        return content_key({**request, **base, "version": CACHE_VERSION})

    def _picture_folder(self, merge: Merge | None, prompt: str, settings: PictureSettings) -> Path:
        key = self._key({"autoencoder": self._outputs, "merge": _decisive(merge), "prompt": prompt, **asdict(settings)})
        return self.folder / "pictures" / key[:2] / key

    def _make_pictures(self, folder: Path, prompt: str, settings: PictureSettings, merge: Merge | None) -> None:
        started = time.perf_counter()
        pictures = generate(
            self.base,
            prompt,
            merge=merge,
            num_images=settings.num_images,
            seed=settings.seed,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            negative_prompt=settings.negative_prompt,
            mixed_precision=settings.mixed_precision,
            expect_names=False,
        )
        seconds = time.perf_counter() - started
        with folder_made_once(folder) as partial:
            for index, picture in enumerate(pictures):
                picture.save(partial / f"{index:03d}.png")
            values = {"prompt": prompt, "seconds": seconds, "merge": _decisive(merge), "num_images": len(pictures)}
            write_json(partial / "set.json", values)


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire()
    except Timeout:
        return False
    return True


def content_key(values: Mapping[str, Any]) -> str:
    """SHA-256 of plain JSON values, 24 hexadecimal digits of it; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:24]


def _decisive_options(config: TrainingConfig) -> dict[str, Any]:
    """Return the options of a training; without `erasure_steps` if there are no such steps."""
    options = config.to_json()
    del options["erasure_steps"], options["thumbnail"], options["preset"]
    return options | ({"erasure_steps": config.steps_after_erasure} if config.steps_after_erasure else {})


def _own_rate(config: TrainingConfig) -> dict[str, float]:
    """Return the default learning rate of a method, which the code decides; nothing if a rate is given."""
    if config.learning_rate is not None or config.layers == "none":
        return {}
    return {"learning_rate": config.weight_learning_rate}


def _decisive(merge: Foldable | None) -> dict[str, Any] | None:
    """Return the part of a merge's recipe that decides its pictures, without the version of the package."""
    if merge is None:
        return None
    recipe = merge.recipe.to_json()
    return {key: recipe[key] for key in ("algorithm", "options", "inputs", "scale", "concepts")}


def _whole(path: Path, read: Callable[[Path], _Read], *companions: Path) -> _Read | None:
    """Read an entry; None if it is missing. A damaged entry is removed, with its companions, and None returned."""
    if not path.exists():
        return None
    try:
        return read(path)
    except (ConceptFileError, SafetensorError, FileNotFoundError, ValueError, KeyError, TypeError) as error:
        _LOG.warning("%s is damaged and is made again: %s", path, error)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        for companion in companions:
            companion.unlink(missing_ok=True)
        return None


def _read_set(folder: Path) -> PictureSet:
    values = read_json(folder / "set.json")
    pictures = PictureSet(values["prompt"], folder, tuple(sorted(folder.glob("*.png"))), values["seconds"])
    if len(pictures.files) != (count := values.get("num_images", len(pictures.files))):
        raise ValueError(f"{len(pictures.files)} pictures of {count}")
    for file in pictures.files:
        try:
            with Image.open(file) as picture:
                picture.verify()
        except (OSError, SyntaxError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the system: the file itself may be whole
                raise
            raise ValueError(f"{file.name}: {error}") from error
    return pictures


def _read_gathered(path: Path) -> Gathered:
    with safe_open(path, "pt") as file:
        return Gathered({name: file.get_tensor(name) for name in file.keys()}, float(file.metadata()["seconds"]))


def _read_seconds(path: Path) -> float:
    try:
        return float(read_json(path)["seconds"])
    except FileNotFoundError:
        return 0.0
    except (ValueError, KeyError, TypeError) as error:
        _LOG.warning("%s is damaged; the time it held counts as 0 seconds: %s", path, error)
        return 0.0


class _Clock:
    """Wall time of a task over all its sessions, kept in a file, also when a session is interrupted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds = _read_seconds(path)

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started
        write_json(self._path, {"seconds": self.seconds})
