"""Every part of a base damaged and changed, one thing at a time: it works, or one line says what is wrong."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orthoplex.errors import OrthoplexError
from orthoplex.generation import generate
from orthoplex.models import load_base
from orthoplex.training import ConceptDataset, TrainingConfig, train

JSON_FILES = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json",
)
WEIGHTS = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)
ANY: tuple[Any, ...] = (None, True, 0, 3, -1, 0.5, "text", "", [], [3], {}, {"a": 1})
"""Values of every type of JSON, for every field."""
NAMES = {
    "unet": ("ControlNetModel", "UNet2DModel", "UNet3DConditionModel", "AutoencoderKL", "Nothing", "os"),
    "vae": ("AutoencoderTiny", "AsymmetricAutoencoderKL", "ConsistencyDecoderVAE", "VQModel", "UNet2DConditionModel"),
    "text_encoder": ("T5EncoderModel", "CLIPTextModelWithProjection", "CLIPVisionModel", "BertModel", "AutoModel"),
    "tokenizer": ("T5Tokenizer", "CLIPTokenizerFast", "BertTokenizer", "AutoTokenizer", "CLIPTextModel", "Nothing"),
    "scheduler": (
        *("PNDMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "LCMScheduler", "DDPMScheduler"),
        *("FlowMatchEulerDiscreteScheduler", "ScoreSdeVeScheduler", "KarrasVeScheduler", "IPNDMScheduler"),
        *(
            "UniPCMultistepScheduler",
            "DPMSolverSDEScheduler",
            "SchedulerMixin",
            "EDMEulerScheduler",
            "RePaintScheduler",
        ),
        *("AutoencoderKL", "Nothing", "VQDiffusionScheduler", "DDIMInverseScheduler", "SASolverScheduler"),
    ),
}
Change = Callable[[Path], object]


def values_for(value: Any) -> list[Any]:
    """The values that a field is given in the place of its own."""
    match value:
        case bool():
            near: list[Any] = [not value]
        case int() | float():
            near = [1, value + 1, 2 * value, value / 2, value * 50, -value, str(value), [value], [value, value]]
        case str():
            near = [value.upper(), value + "x", [value], "gelu", "silu", "linear", "scaled_linear", "text_proj"]
        case list():
            near = [value[:1], value * 2, value[::-1], [None] * len(value), [0] * len(value), value + ["x"]]
        case _:
            near = [
                1,
                8,
                24,
                [8, 8],
                "text",
                "scale_shift",
                "text_proj",
                "layer_norm",
                "silu",
                "projection",
                "timestep",
            ]
    unique = {json.dumps(item): item for item in [*near, *ANY]}
    unique.pop(json.dumps(value), None)
    return list(unique.values())


def setting(file: str, key: str, value: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return change


def lacking(file: str, key: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({name: item for name, item in json.loads(path.read_text()).items() if name != key}))

    return change


def written(file: str, content: bytes) -> Change:
    return lambda folder: (folder / file).write_bytes(content)


def cut(file: str, share: float) -> Change:
    return lambda folder: (folder / file).write_bytes(
        (folder / file).read_bytes()[: int(share * (folder / file).stat().st_size)]
    )


def damages(folder: Path, file: str) -> Iterator[tuple[str, Change]]:
    """Changes of a whole file."""
    yield f"{file} missing", lambda folder: (folder / file).unlink()
    yield f"{file} a folder", lambda folder: ((folder / file).unlink(), (folder / file).mkdir())
    for name, content in {
        "empty": b"",
        "bytes": bytes(range(256)),
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "null": b"null",
        "list": b"[]",
        "object": b"{}",
        "text": b'"text"',
        "number": b"3",
        "deep": b"[" * 99999,
    }.items():
        yield f"{file} {name}", written(file, content)
    for share in (0.3, 0.9, 0.999):
        yield f"{file} cut to {share}", cut(file, share)
    whole = (folder / file).read_bytes()
    yield f"{file} longer", written(file, whole + b"x")
    for other in (*JSON_FILES[:3], WEIGHTS[0]):
        yield f"{file} is {other}", written(file, (folder / other).read_bytes())


def cases(folder: Path, file: str) -> Iterator[tuple[str, Change]]:
    """All changes of one file."""
    yield from damages(folder, file)
    if file.endswith(".json"):
        for key, value in json.loads((folder / file).read_text()).items():
            yield f"{file} without {key}", lacking(file, key)
            others = ANY if file.endswith("tokenizer.json") else values_for(value)
            for other in others:
                yield f"{file} {key}={json.dumps(other)}", setting(file, key, other)
    if file == "model_index.json":
        for component, names in NAMES.items():
            for library in ("diffusers", "transformers", "my_code", "os"):
                for name in names:
                    yield f"{component} is {library}.{name}", setting(file, component, [library, name])


def photos(folder: Path) -> ConceptDataset:
    folder.mkdir()
    for number in range(2):
        pixels = np.full((32, 32, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return ConceptDataset.from_folder(folder, resolution=32, class_word="cat", token="<rex>", kind="subject")


CONFIG = {"steps": 1, "batch_size": 1, "erasure": 0.0}


def use(base_folder: Path, dataset: ConceptDataset, output: Path) -> str:
    """Load, draw a picture and take a training step: ``works``, or the line that refuses."""
    try:
        base = load_base(base_folder)
        generate(base, "a cat", num_inference_steps=2)
        list(train(base, dataset, TrainingConfig(**CONFIG), output=output / "rex.safetensors", overwrite=True))
    except OrthoplexError as error:
        return str(error)
    return "works"


def tried(pico_folder: Path, tmp_path: Path, file: str, silence: Any) -> tuple[Counter[str], list[str]]:
    """Count the outcomes of all changes of a file, and list those that are none of the two allowed."""
    dataset, counts, others = photos(tmp_path / "photos"), Counter[str](), []
    for name, change in cases(pico_folder, file):
        folder = tmp_path / "base"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pico_folder, folder)
        change(folder)
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("default")
            try:
                outcome = use(folder, dataset, tmp_path)
            except Exception as error:
                others.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
                continue
        out, err = silence.readouterr()
        counts["worked" if outcome == "works" else "refused"] += 1
        if "\n" in outcome or "Traceback" in outcome:
            others.append(f"{name}: lines: {outcome[:200]}")
        if out or err or noted:
            others.append(f"{name}: printed {out!r} {err[:200]!r} {[str(note.message)[:100] for note in noted]}")
    return counts, others


@pytest.mark.slow
@pytest.mark.parametrize("file", [*JSON_FILES, *WEIGHTS])
def test_every_change_of_a_file_works_or_is_refused_in_a_line(pico_folder, tmp_path, file, capfd):
    logging.getLogger("orthoplex").info("fuzzing %s", file)
    counts, others = tried(pico_folder, tmp_path, file, capfd)
    with capfd.disabled():
        print(f"\n{file}: {counts.total()} inputs, {dict(counts)}, others {len(others)}")
    assert not others, "\n".join(others)
