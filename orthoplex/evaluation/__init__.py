"""Pictures to numbers: a frozen encoder, pure formulas on its vectors, and how far they can be trusted."""

from orthoplex.evaluation.faces import FACE_COSINE, Face, FaceDetector, FaceEncoder
from orthoplex.evaluation.folders import FolderEvaluation, evaluate_folder, read_pictures
from orthoplex.evaluation.heads import LinearHead, fit_linear_head, load_head, save_head
from orthoplex.evaluation.intervals import Interval, bootstrap, crossed_interval, mean_interval, retention_interval
from orthoplex.evaluation.metrics import (
    NOTHING,
    comparable_references,
    has_features,
    identity_rate,
    identity_threshold,
    image_alignment,
    mean_cosine,
    recognised,
    recognised_rate,
    scores,
    shares,
)
from orthoplex.evaluation.mobilenet import LAYERS, MobileNetEncoder
from orthoplex.evaluation.parts import halves
from orthoplex.evaluation.picture_encoder import LARGEST_PICTURE, Encoder
from orthoplex.evaluation.pretrained import ClipEncoder, DinoEncoder
from orthoplex.evaluation.text_alignment import TEXT_PREFIX, above_chance, asked_for, shows, text_scores

PRETRAINED: dict[str, type[ClipEncoder | DinoEncoder | FaceEncoder]] = {
    "clip": ClipEncoder,
    "dino": DinoEncoder,
    "face": FaceEncoder,
}
"""Kinds of encoders that take a model: a folder, or a name where they find models."""

__all__ = [
    "FACE_COSINE",
    "LARGEST_PICTURE",
    "LAYERS",
    "NOTHING",
    "PRETRAINED",
    "TEXT_PREFIX",
    "ClipEncoder",
    "DinoEncoder",
    "Encoder",
    "Face",
    "FaceDetector",
    "FaceEncoder",
    "FolderEvaluation",
    "Interval",
    "LinearHead",
    "MobileNetEncoder",
    "above_chance",
    "asked_for",
    "bootstrap",
    "crossed_interval",
    "evaluate_folder",
    "fit_linear_head",
    "has_features",
    "comparable_references",
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
    "retention_interval",
    "save_head",
    "scores",
    "shares",
    "shows",
    "text_scores",
]
