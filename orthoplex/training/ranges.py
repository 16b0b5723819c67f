"""What numbers training options may be."""

import math

ABOVE_ZERO = (
    *("learning_rate", "text_encoder_learning_rate", "token_norm_limit", "alpha"),
    *("min_snr_gamma", "erasure_share", "dual_ridge"),
)
_LARGEST = 1e6
"""Of factors that meet numbers of float32: their products must stay finite."""
RANGES: dict[str, tuple[float, float]] = {
    "slot": (0, math.inf),
    "slots": (1, math.inf),
    "rank": (0, math.inf),
    "learning_rate": (0, _LARGEST),
    "text_encoder_learning_rate": (0, _LARGEST),
    "token_learning_rate": (0, _LARGEST),
    "num_vectors": (1, 16),
    "token_norm_limit": (0, math.inf),
    "steps": (1, math.inf),
    "token_steps": (0, math.inf),
    "duals": (1, math.inf),
    "dual_ridge": (0, _LARGEST),
    "batch_size": (1, math.inf),
    "weight_decay": (0, _LARGEST),
    "gradient_clip": (0, math.inf),
    "warmup": (0, math.inf),
    "seed": (0, 2**62),
    "min_snr_gamma": (0, math.inf),
    "noise_offset": (0, math.inf),
    "caption_dropout": (0, 1),
    "erasure": (0, _LARGEST),
    "erasure_share": (0, 1),
    "erasure_prompts": (1, math.inf),
    "erasure_steps": (0, math.inf),
    "erasure_batch_size": (1, math.inf),
    "prior_pictures": (0, math.inf),
    "prior_weight": (0, 1),
    "sample_every": (0, math.inf),
    "num_inference_steps": (1, math.inf),
    "prior_inference_steps": (1, math.inf),
    "guidance_scale": (0, math.inf),
    "checkpoint_every": (0, math.inf),
}
