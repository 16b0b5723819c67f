"""Pictures to a concept: one visible loop that yields step records."""

from typing import TYPE_CHECKING

from orthoplex.exports import exports

if TYPE_CHECKING:
    from orthoplex.training.checkpoint import checkpoint_path, checkpoint_step
    from orthoplex.training.config import TrainingConfig
    from orthoplex.training.dataset import (
        CaptionRow,
        ConceptDataset,
        Picture,
        insert_trigger,
        read_caption_table,
    )
    from orthoplex.training.foreign import with_article
    from orthoplex.training.inputs import foreign_gram, gather_inputs, inputs_for, merge_for, own_prompts, with_inputs
    from orthoplex.training.loop import train
    from orthoplex.training.merged_folder import MergedFolder, merge_to_folder
    from orthoplex.training.prompts import FOREIGN_PROMPTS, default_foreign_prompts
    from orthoplex.training.records import StepRecord, log_path, samples_folder
    from orthoplex.training.run import check_layers, starting_tokens
    from orthoplex.training.silence import silenced

__getattr__ = exports(
    __name__,
    {
        "CaptionRow": "dataset",
        "ConceptDataset": "dataset",
        "FOREIGN_PROMPTS": "prompts",
        "MergedFolder": "merged_folder",
        "Picture": "dataset",
        "StepRecord": "records",
        "TrainingConfig": "config",
        "check_layers": "run",
        "checkpoint_path": "checkpoint",
        "checkpoint_step": "checkpoint",
        "default_foreign_prompts": "prompts",
        "foreign_gram": "inputs",
        "gather_inputs": "inputs",
        "inputs_for": "inputs",
        "insert_trigger": "dataset",
        "log_path": "records",
        "merge_for": "inputs",
        "merge_to_folder": "merged_folder",
        "own_prompts": "inputs",
        "read_caption_table": "dataset",
        "samples_folder": "records",
        "silenced": "silence",
        "starting_tokens": "run",
        "train": "loop",
        "with_article": "foreign",
        "with_inputs": "inputs",
    },
)

__all__ = [
    "CaptionRow",
    "ConceptDataset",
    "FOREIGN_PROMPTS",
    "MergedFolder",
    "Picture",
    "StepRecord",
    "TrainingConfig",
    "check_layers",
    "checkpoint_path",
    "checkpoint_step",
    "default_foreign_prompts",
    "foreign_gram",
    "gather_inputs",
    "inputs_for",
    "insert_trigger",
    "log_path",
    "merge_for",
    "merge_to_folder",
    "own_prompts",
    "read_caption_table",
    "samples_folder",
    "silenced",
    "starting_tokens",
    "train",
    "with_article",
    "with_inputs",
]
