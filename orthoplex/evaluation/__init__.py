"""Pictures to numbers: a frozen encoder, pure formulas on its vectors, and how far they can be trusted."""

from orthoplex.evaluation.encoder import LARGEST_PICTURE, LAYERS, Encoder
from orthoplex.evaluation.folders import FolderEvaluation, evaluate_folder, read_pictures
from orthoplex.evaluation.heads import LinearHead, fit_linear_head, load_head, save_head
from orthoplex.evaluation.intervals import Interval, bootstrap, mean_interval, retention_interval
from orthoplex.evaluation.metrics import (
    confusion,
    identity_rate,
    identity_threshold,
    image_alignment,
    mean_cosine,
    recognised,
    recognised_rate,
    retention,
    scores,
    shares,
)
from orthoplex.evaluation.parts import halves

__all__ = [
    "LARGEST_PICTURE",
    "LAYERS",
    "Encoder",
    "FolderEvaluation",
    "Interval",
    "LinearHead",
    "bootstrap",
    "confusion",
    "evaluate_folder",
    "fit_linear_head",
    "halves",
    "identity_rate",
    "identity_threshold",
    "image_alignment",
    "load_head",
    "mean_cosine",
    "mean_interval",
    "read_pictures",
    "recognised",
    "recognised_rate",
    "retention",
    "retention_interval",
    "save_head",
    "scores",
    "shares",
]
