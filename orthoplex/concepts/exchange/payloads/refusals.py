"""Kinds of changes that no sum of matrices holds, by the names of their parts, and what to do with each."""

from __future__ import annotations

from orthoplex.concepts.exchange.payloads.row import PayloadRow

_BAKE = "merge it into its base with the program that made it, and extract a LoRA from the difference of both bases"


def _refused(description: str, reason: str, cure: str, *names: str) -> PayloadRow:
    parts = {name: (f".{name}",) for name in names}
    return PayloadRow(description, parts, refusal=f"{reason}; {cure}")


REFUSED: dict[str, PayloadRow] = {
    "dora": _refused(
        "DoRA",
        "it gives the sum of weight and change a length of its own, so its change is another for every base",
        _BAKE,
        "dora_scale",
        "lora_magnitude_vector",
    ),
    "oft": _refused(
        "a rotation of the weight (OFT, BOFT, HRA, RoAd)",
        "it multiplies the weight, so its change is another for every base",
        _BAKE,
        *("oft_", "boft_", "hra_", "road_", "rescale"),
    ),
    "ia3": _refused(
        "(IA)³",
        "it scales the weight's rows or columns, so its change is another for every base",
        _BAKE,
        *("ia3_", "on_input"),
    ),
    "glora": _refused(
        "GLoRA",
        "a part of it multiplies the weight, so its change is another for every base",
        _BAKE,
        *("a1.weight", "a2.weight", "b1.weight", "b2.weight", "bm.weight", "glora_"),
    ),
    "hira": _refused(
        "HiRA",
        "it multiplies the weight number by number, so its change is another for every base",
        _BAKE,
        "hira_",
    ),
    "settings": _refused(
        "a change that PEFT works out from settings (VeRA, RandLoRA, FourierFT, MiSS and their kind)",
        "its factors are drawn from a seed, shared by layers, or arranged by settings outside of its tensors",
        "load it in PEFT with its base, and write it again with peft.save_as_lora",
        *("vera_", "randlora_", "fourierft_", "waveft_", "vblora_", "tinylora_", "unilora_", "miss_"),
        *("gralora_", "delora_", "c3a_", "psoft_"),
    ),
    "shira": _refused(
        "SHiRA",
        "its numbers are scattered over the weight, and their factor is a setting outside of its tensors",
        _BAKE,
        "shira_",
    ),
    "adalora": _refused(
        "AdaLoRA",
        "its scaling depends on ranks that were pruned while it was trained",
        _BAKE,
        *("lora_E", "ranknum"),
    ),
    "tlora": _refused(
        "T-LoRA",
        "its rank changes with the time of denoising, and it is a difference to a state that the file does not hold",
        "allowed are changes that are one for all times",
        *("q_layer.weight", "p_layer.weight", "lambda_layer"),
    ),
    "network": _refused(
        "a network of its own or a change of what layers give out",
        "no change of a weight says the same",
        "allowed are LoRA, LoHa, LoKr and full differences",
        *("poly_", "lily_", "peanut_", "adamss_", "deft_", "osf_", "supertuning_", "frod_", "pvera_", "beft_"),
        *("ln_tuning_", "trainable_tokens_", "lora_diag"),
    ),
    "sparse": _refused(
        "a low-rank product with a sparse rest",
        "programs differ in how they scale the rest",
        "extract it again without a sparse bias",
        *("bias_indices", "bias_values", "bias_size"),
    ),
    "replacement": _refused(
        "a weight in the place of the base's, or of another shape",
        "it replaces the base's weight, and is no change of it",
        "subtract the base's weight from it and store that as .diff, or leave it out",
        *("set_weight", "reshape_weight", "modules_to_save", "weight", "bias"),
    ),
}
"""Name to row. A part is the beginning of what stands in a key behind the module: a whole name, or, with an underscore
at its end, the beginning of a name. Whatever stands below it belongs to it."""
