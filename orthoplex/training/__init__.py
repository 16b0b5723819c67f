"""Pictures to a concept: one visible loop that yields step records."""

from orthoplex.training.batches import native_resolution
from orthoplex.training.checkpoint import checkpoint_path, checkpoint_step
from orthoplex.training.config import TrainingConfig
from orthoplex.training.dataset import (
    CAPTION_TEMPLATES,
    CaptionRow,
    ConceptDataset,
    Picture,
    insert_trigger,
    read_caption_table,
)
from orthoplex.training.foreign import with_article
from orthoplex.training.inputs import foreign_gram, gather_inputs, inputs_for, merge_for, own_prompts, with_inputs
from orthoplex.training.loop import train
from orthoplex.training.prompts import FOREIGN_PROMPTS, default_foreign_prompts
from orthoplex.training.records import StepRecord, log_path, samples_folder
from orthoplex.training.run import check_layers, starting_tokens
from orthoplex.training.silence import silenced

__all__ = [
    "CAPTION_TEMPLATES",
    "FOREIGN_PROMPTS",
    "CaptionRow",
    "ConceptDataset",
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
    "native_resolution",
    "own_prompts",
    "read_caption_table",
    "samples_folder",
    "silenced",
    "starting_tokens",
    "train",
    "with_article",
    "with_inputs",
]
