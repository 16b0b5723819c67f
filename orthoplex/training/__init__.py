"""Pictures to a concept: one visible loop that yields step records."""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.training.checkpoint import checkpoint_path, checkpoint_step
    from orthoplex.training.config import TrainingConfig
    from orthoplex.training.data_folder import DataFolder, FolderPicture
    from orthoplex.training.dataset import ConceptDataset, Picture
    from orthoplex.training.folder_check import checked_folder
    from orthoplex.training.folder_files import counted, holds_pictures
    from orthoplex.training.loop import train
    from orthoplex.training.presets import PRESETS, Preset
    from orthoplex.training.records import StepRecord, log_path, samples_folder
    from orthoplex.training.run import changed_layers, check_layers, starting_tokens

__getattr__ = exports(
    __name__,
    {
        "ConceptDataset": "dataset",
        "DataFolder": "data_folder",
        "FolderPicture": "data_folder",
        "PRESETS": "presets",
        "Picture": "dataset",
        "Preset": "presets",
        "StepRecord": "records",
        "TrainingConfig": "config",
        "changed_layers": "run",
        "check_layers": "run",
        "checked_folder": "folder_check",
        "checkpoint_path": "checkpoint",
        "checkpoint_step": "checkpoint",
        "counted": "folder_files",
        "holds_pictures": "folder_files",
        "log_path": "records",
        "samples_folder": "records",
        "starting_tokens": "run",
        "train": "loop",
    },
)

__all__ = [
    "ConceptDataset",
    "DataFolder",
    "FolderPicture",
    "PRESETS",
    "Picture",
    "Preset",
    "StepRecord",
    "TrainingConfig",
    "changed_layers",
    "check_layers",
    "checked_folder",
    "checkpoint_path",
    "checkpoint_step",
    "counted",
    "holds_pictures",
    "log_path",
    "samples_folder",
    "starting_tokens",
    "train",
]
