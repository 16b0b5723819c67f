"""``orthoplex train``: a folder of pictures becomes a concept file."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args

import typer

from orthoplex.cli.bank import check_bank, in_bank, put_into_bank, reserved_slot
from orthoplex.cli.base_arguments import (
    BaseConfigOption,
    BaseOption,
    DenoiserOption,
    DownloadOption,
    QuantiseOption,
    VariantOption,
    chosen_base,
)
from orthoplex.cli.console import argument_folder, completing, errors_shown, progress_bar, refuse_existing
from orthoplex.cli.guard import INTERRUPTED_EXIT
from orthoplex.cli.streams import note, say
from orthoplex.concepts import KINDS, read_manifest, token_names
from orthoplex.options import METHOD_NAMES, PRESET_NAMES, Basis
from orthoplex.options.spellings import own_name

if TYPE_CHECKING:
    from orthoplex.models import Base
    from orthoplex.training import ConceptDataset, DataFolder, StepRecord, TrainingConfig

FolderArgument = Annotated[
    Path, typer.Argument(parser=argument_folder, metavar="FOLDER", help="Folder of pictures, with captions or without.")
]
KindOption = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(KINDS)}; by default as the class word says, else subject.",
        autocompletion=completing(tuple(KINDS)),
    ),
]
MethodOption = Annotated[
    str | None, typer.Option(help=f"One of {', '.join(METHOD_NAMES)}.", autocompletion=completing(METHOD_NAMES))
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        help=f"The training of a paper: {', '.join(PRESET_NAMES)}; other options win over it.",
        autocompletion=completing(PRESET_NAMES),
    ),
]
BasisOption = Annotated[
    str | None, typer.Option(help=f"One of {', '.join(get_args(Basis))}.", autocompletion=completing(get_args(Basis)))
]

ClassDataOption = Annotated[
    Path | None,
    typer.Option(
        parser=argument_folder, metavar="FOLDER",
        help="Folder of pictures of the class, for prior preservation; the base makes what prior_pictures lacks.",
    ),
]  # fmt: skip
NoThumbnailOption = Annotated[bool, typer.Option("--no-thumbnail", help="Leave the small picture out of the file.")]
ConfigOption = Annotated[
    Path | None, typer.Option(help="TOML file of training options; by default those of the shipped concepts.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any training option; overrides all else.")
]
CacheOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Store what is computed before the first step; later trainings read it."),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue from the checkpoint, if there is one; more --steps lengthen a run.")
]

TrainingBankOption = Annotated[
    Path | None,
    typer.Option("--bank", help="Bank that gives a free slot before the training, and gets the concept after it."),
]
CheckpointOption = Annotated[
    bool, typer.Option(help="Leave a checkpoint behind a finished run, from which it can be lengthened.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing concept file, and begin anew.")]


def train(
    folder: FolderArgument,
    name: Annotated[str, typer.Option(help="Name of the concept; prompts say <name>.")],
    class_word: Annotated[str, typer.Option(help="The ordinary word for what it is, for example person.")],
    kind: KindOption = None,
    class_data: ClassDataOption = None,
    base: BaseOption = "vignette",
    output: Annotated[Path | None, typer.Option(help="Concept file; by default NAME.safetensors.")] = None,
    preset: PresetOption = None,
    method: MethodOption = None,
    basis: BasisOption = None,
    slot: Annotated[str | None, typer.Option(help="Number of the slot, or auto.")] = None,
    bank: TrainingBankOption = None,
    rank: Annotated[str | None, typer.Option(help="Directions per layer, or proportional.")] = None,
    erasure: Annotated[float | None, typer.Option(help="Weight of erasure on prompts without the concept.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of the weights.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything random.")] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    resume: ResumeOption = False,
    checkpoint: CheckpointOption = True,
    overwrite: OverwriteOption = False,
    no_thumbnail: NoThumbnailOption = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, …")] = "cpu",
    cache_dir: CacheOption = None,
    variant: VariantOption = None,
    base_config: BaseConfigOption = None,
    download: DownloadOption = False,
    quantise: QuantiseOption = None,
    denoiser: DenoiserOption = None,
) -> None:
    """Train a concept from a folder of pictures."""
    flags = {"preset": preset, "method": method, "basis": basis, "slot": slot, "rank": rank, "erasure": erasure}
    flags |= {"steps": steps, "learning_rate": learning_rate, "seed": seed}
    with errors_shown():
        from orthoplex import training
        from orthoplex.models import load_base, training_defaults

        output = output or Path(f"{name}.safetensors")
        goes_on = resume and training.checkpoint_path(output).is_file()
        refuse_existing(output, overwrite or goes_on)
        chosen = chosen_base(base, variant, base_config, download)
        options = partial(_settings, config, flags, set_ or [], no_thumbnail)
        check_bank(bank)
        options(training_defaults(chosen))  # refused before anything is loaded
        report = _scanned(folder)
        of_class = None if class_data is None else _scanned(class_data, of_class=True)
        model = load_base(chosen, device=device, quantise=quantise, denoiser=denoiser)
        settings = options(model.training_defaults)
        dataset = _dataset(report, of_class, model, settings, (name, class_word, kind))
        with reserved_slot(bank, name, training.checkpoint_path(output)):
            settings = in_bank(bank, name, settings, model, again=goes_on or overwrite)
            note(f"Training {dataset.trigger} ({dataset.kind}) on {_counted(dataset)}")
            records = training.train(
                model, dataset, settings, output=output, resume=resume, overwrite=overwrite,
                keep_checkpoint=checkpoint, cache_dir=cache_dir,
            )  # fmt: skip
            _say_finished(records, settings, output)
        put_into_bank(bank, output, again=goes_on or overwrite)


def _dataset(
    report: "DataFolder",
    of_class: "DataFolder | None",
    model: "Base",
    settings: "TrainingConfig",
    words: tuple[str, str, str | None],
) -> "ConceptDataset":
    """Read the pictures as the options say; the base then makes pictures of their resolution."""
    from orthoplex.models import side_multiple
    from orthoplex.training import ConceptDataset

    name, class_word, kind = words
    if settings.resolution is not None:
        model.family.use_resolution(settings.resolution)
    dataset = ConceptDataset.from_folder(
        report,
        resolution=model.family.resolution,
        token=token_names(name)[0],
        class_word=class_word,
        kind=kind,
        trigger_form=settings.trigger_form,
        side_multiple=side_multiple(model.family) if settings.buckets else None,
    )
    return dataset if of_class is None else dataset.with_class_pictures(of_class)


def _counted(dataset: "ConceptDataset") -> str:
    """Return the number of pictures, and of those that have a mask."""
    from orthoplex.training import counted

    masked = f", {dataset.num_masks} of them with a mask" if dataset.num_masks else ""
    buckets = f", in {counted(len(dataset.in_buckets()), 'bucket')}" if dataset.has_buckets else ""
    given = f", {counted(len(dataset.class_pictures), 'class picture')}" if dataset.class_pictures else ""
    return counted(len(dataset), "picture") + masked + buckets + given


def _settings(
    path: Path | None,
    flags: Mapping[str, object],
    entries: Sequence[str],
    no_thumbnail: bool,  # noqa: FBT001  (given by partial)
    defaults: Mapping[str, Any],
) -> "TrainingConfig":
    """Read the options: a file, flags, then entries given as such, then what hides; the last of a key counts."""
    from orthoplex.training import TrainingConfig

    replaced = {own_name(entry.partition("=")[0].strip()) for entry in entries}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None and key not in replaced]
    overrides = [*given, *entries, *(["thumbnail=none"] if no_thumbnail else [])]
    return TrainingConfig.from_toml(path, overrides=overrides, defaults=defaults)


def _scanned(folder: Path, *, of_class: bool = False) -> "DataFolder":
    """Look at a folder of pictures, of the concept or of its class, and say what is read and what not."""
    from orthoplex.training import DataFolder

    report = DataFolder.scan(folder, with_masks=not of_class)
    note(f"Class pictures: {report.summary}" if of_class else report.summary)
    report.check()
    return report


def _say_finished(records: "Generator[StepRecord, None, None]", settings: "TrainingConfig", output: Path) -> None:
    """Draw the records, and say what came of them: the file, what it holds, and how it is lengthened."""
    from orthoplex.training import checkpoint_path

    with closing(records):
        last = _show(records, output, samples=settings.sample_every > 0)
    if last is None or last.output is None:
        _leave_stopped(last, settings.steps, output)
    say(f"{last.output} in {last.seconds:.1f} s; {_content(last.output)}")
    if checkpoint_path(output).is_file():
        again = "to train it further, repeat the command with --resume and more --steps"
        note(f"{again}; else {checkpoint_path(output)} may be deleted")


def _content(output: Path) -> str:
    """Say what a concept file holds that may be somebody's own business."""
    manifest = read_manifest(output)
    return f"holds {manifest.picture}" + ("; --no-thumbnail leaves it out" if manifest.thumbnail else "")


def _leave_stopped(last: "StepRecord | None", steps: int, output: Path) -> NoReturn:
    """Say where a training stopped: after its last record, or, where it made none, where its checkpoint is."""
    from orthoplex.training import checkpoint_path, checkpoint_step

    checkpoint, step = checkpoint_path(output), 0 if last is None else last.step
    outcome = "nothing is kept"
    if checkpoint.is_file():
        outcome = "--resume continues"
        step = checkpoint_step(checkpoint) if last is None else step
    note(f"Stopped after step {step} of {steps}; {outcome}")
    raise typer.Exit(INTERRUPTED_EXIT)


def _show(records: "Iterable[StepRecord]", output: Path, *, samples: bool) -> "StepRecord | None":
    """Draw the records and return the last one; Ctrl-C ends the drawing, whoever is at work when it comes."""
    from orthoplex.training import log_path, samples_folder

    first = last = None
    with progress_bar("loss", "speed") as bar:
        task = bar.add_task("preparing", total=None, loss="", speed="")
        try:
            for record in records:
                if first is None:
                    first = record
                    where = f"Log and sample pictures: {log_path(output)}, {samples_folder(output)}/"
                    bar.console.print(where if samples else f"Log: {log_path(output)}", markup=False)
                last = record
                gone, taken = record.step - first.step, record.seconds - first.seconds
                bar.update(
                    task,
                    description="training",
                    completed=record.step,
                    total=record.steps,
                    loss="" if record.loss is None else f"loss {record.loss:.4f}",
                    speed=f"{gone / taken:.1f} steps/s" if gone and taken > 0 else "",
                )
        except KeyboardInterrupt:
            return last
    return last
