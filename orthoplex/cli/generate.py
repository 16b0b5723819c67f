"""``orthoplex generate``: a prompt becomes pictures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orthoplex.cli.bank import BankOption, banked
from orthoplex.cli.base_arguments import (
    BaseConfigOption,
    BaseOption,
    DenoiserOption,
    DownloadOption,
    QuantiseOption,
    UnmergedOption,
    VariantOption,
    chosen_base,
    weight_type,
)
from orthoplex.cli.console import (
    AlgorithmName,
    AlgorithmOption,
    check_merge_options,
    errors_shown,
    load_concepts,
    load_tagged,
    note_triggers,
    parse_options,
    progress_bar,
    refuse_existing,
)
from orthoplex.cli.lora_files import lora_tags_json, tagged_files
from orthoplex.cli.streams import say
from orthoplex.options import AUTO, Precision, WeightType

if TYPE_CHECKING:
    from PIL.Image import Image

    from orthoplex.generation import GenerationProgress
    from orthoplex.models import Base
    from orthoplex.models.prompts.lora_tags import LoraTag

PromptArgument = Annotated[
    str, typer.Argument(help="What to picture; <name> is a concept, (words:1.2) a weight, <lora:NAME:0.8> a file.")
]
ConceptOption = Annotated[
    list[str] | None, typer.Option(help="Concept or LoRA file, with @STRENGTH if it is not 1; may be repeated.")
]
LoraFolderOption = Annotated[
    list[Path] | None, typer.Option(help="Folder of the files that <lora:NAME:0.8> names; may be repeated.")
]

StepsOption = Annotated[int | None, typer.Option(help="Denoising steps; the base's own by default.")]
GuidanceOption = Annotated[
    float | None, typer.Option(help="How strictly the prompt is followed; the base's own by default.")
]
ResolutionOption = Annotated[
    int | None, typer.Option(help="Width and height of the pictures in pixels; the base's own by default.")
]


def generate(
    prompt: PromptArgument,
    output: Annotated[Path, typer.Option(help="PNG file; several pictures get _0, _1, … before the suffix.")],
    concept: ConceptOption = None,
    bank: BankOption = None,
    lora_dir: LoraFolderOption = None,
    base: BaseOption = "vignette",
    scale: Annotated[float, typer.Option(help="Strength of all concepts together (lambda).")] = 1.0,
    algorithm: AlgorithmName = AUTO,
    option: AlgorithmOption = None,
    seed: Annotated[int, typer.Option(help="Noise of the first picture; the next ones count up.")] = 0,
    num_images: Annotated[int, typer.Option(help="How many pictures.")] = 1,
    steps: StepsOption = None,
    guidance_scale: GuidanceOption = None,
    negative_prompt: Annotated[str, typer.Option(help="What the pictures shall not hold.")] = "",
    mixed_precision: Annotated[Precision, typer.Option(help="bf16: autocast; auto: where it is fast.")] = "no",
    resolution: ResolutionOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing pictures.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    variant: VariantOption = None,
    base_config: BaseConfigOption = None,
    download: DownloadOption = False,
    dtype: Annotated[WeightType, typer.Option(help="Type of the weights in memory.")] = "float32",
    quantise: QuantiseOption = None,
    denoiser: DenoiserOption = None,
    unmerged: UnmergedOption = False,
) -> None:
    """Make pictures of a prompt, with any set of concepts."""
    with errors_shown():
        from orthoplex.activations import merge_for
        from orthoplex.models import load_base

        paths, concept = _new_files(output, num_images, overwrite), banked(concept, bank)
        options = parse_options(option or [])
        check_merge_options(algorithm=algorithm, options=options, scale=scale)
        prompt, tagged = tagged_files(prompt, concept, lora_dir or [])
        chosen = chosen_base(base, variant, base_config, download)
        model = load_base(chosen, device=device, quantise=quantise, denoiser=denoiser, dtype=weight_type(dtype))
        model.family.use_resolution(resolution)
        loaded = [*load_concepts(concept, model), *load_tagged(tagged, model)]
        note_triggers(loaded, prompt)
        merged = merge_for(model, loaded, algorithm=algorithm, options=options, scale=scale) if loaded else None
        settings: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "merge": merged}
        settings |= {
            "negative_prompt": negative_prompt,
            "mixed_precision": mixed_precision,
            "unmerged": unmerged or None,
        }
        draw = {"num_images": num_images, "seed": seed, **settings}
        _draw(model, prompt, paths, draw, tagged)


def _draw(
    model: "Base", prompt: str, paths: Sequence[Path], draw: dict[str, Any], tagged: "Sequence[tuple[Path, LoraTag]]"
) -> None:
    """Make pictures, write each as it is done, and say which were written."""
    from orthoplex.generation import generate as generate_pictures
    from orthoplex.generation import picture_recipe, save_png

    saved: list[Path] = []
    of_each = {name: value for name, value in draw.items() if name not in ("num_images", "seed")}

    def save(number: int, image: "Image") -> None:
        recipe = picture_recipe(prompt, base=model, seed=draw["seed"] + number, **of_each)
        save_png(image, paths[number], recipe | lora_tags_json(tagged))
        saved.append(paths[number])

    try:
        with _step_bar() as advance:
            generate_pictures(model, prompt, progress=advance, finish=save, **draw)
    finally:
        for path in saved:
            say(str(path))


@contextmanager
def _step_bar() -> "Iterator[Callable[[GenerationProgress], None]]":
    """Draw a bar of the denoising steps, from the first one on."""
    with progress_bar() as bar:
        task = bar.add_task("picturing", total=None, visible=False)

        def advance(progress: "GenerationProgress") -> None:
            bar.update(task, completed=progress.step, total=progress.steps, visible=True)

        yield advance


def picture_paths(output: Path, num_images: int) -> list[Path]:
    """Return the file of each picture: ``out.png``, or ``out_0.png``, ``out_1.png``, … for several."""
    if num_images == 1:
        return [output]
    return [output.with_name(f"{output.stem}_{number}{output.suffix}") for number in range(num_images)]


def _new_files(output: Path, num_images: int, overwrite: bool) -> list[Path]:
    """The files of the pictures, each of which can be written."""
    from orthoplex.files import check_writable
    from orthoplex.generation import check_png_name

    paths = picture_paths(output, num_images)
    for path in paths:
        check_png_name(path)
        refuse_existing(path, overwrite)
        check_writable(path)
    return paths
