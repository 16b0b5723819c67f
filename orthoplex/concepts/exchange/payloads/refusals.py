"""Kinds of changes that no sum of matrices holds, by the names of their parts, and what to do with each."""

from __future__ import annotations

from orthoplex.concepts.exchange.payloads.row import PayloadRow

_BAKE = "merge it into its base with the program that made it, and extract a LoRA from the difference of both bases"
_SAVE = "load it in PEFT with its base, and write it again with peft.save_as_lora"


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
        "OFT, a rotation of the weight",
        "it multiplies the weight, so its change is another for every base",
        _BAKE,
        *("oft_blocks", "oft_diag", "oft_R", "oft_embedding_R", "rescale", "boft_R", "boft_s", "hra_u"),
        *("road_theta", "road_alpha", "psoft_R", "psoft_mag_in", "psoft_mag_out"),
    ),
    "ia3": _refused(
        "(IA)³",
        "it scales the weight's rows or columns, so its change is another for every base",
        _BAKE,
        *("ia3_l", "on_input"),
    ),
    "glora": _refused(
        "GLoRA",
        "a part of it multiplies the weight, so its change is another for every base",
        _BAKE,
        *(
            "a1.weight",
            "a2.weight",
            "b1.weight",
            "b2.weight",
            "bm.weight",
            "glora_A",
            "glora_B",
            "glora_C",
            "glora_D",
            "glora_E",
        ),
    ),
    "hira": _refused(
        "HiRA",
        "it multiplies the weight number by number, so its change is another for every base",
        _BAKE,
        *("hira_A", "hira_B", "hira_embedding_A", "hira_embedding_B"),
    ),
    "seeded": _refused(
        "a change with parts that are drawn from a seed or from the base (VeRA, RandLoRA, FourierFT and their kind)",
        "the file does not hold all of its numbers",
        _SAVE,
        *("vera_lambda_b", "vera_lambda_d", "vera_A", "vera_B", "randlora_lambda", "randlora_gamma"),
        *("randlora_A", "randlora_B", "fourierft_spectrum", "waveft_spectrum", "vblora_logits_A", "vblora_logits_B"),
        *("vblora_vector_bank", "tinylora_v", "unilora_theta_d", "shira_weight"),
    ),
    "blocks": _refused(
        "a change in blocks of PEFT (MiSS, GraLoRA, DeLoRA, C3A)",
        "its arithmetic depends on settings that are not in its tensors",
        _SAVE,
        *("miss_block", "gralora_A", "gralora_B", "gralora_A_general", "gralora_B_general", "c3a_kernel"),
        *("delora_A", "delora_B", "delora_lambda"),
    ),
    "adalora": _refused(
        "AdaLoRA",
        "its scaling depends on ranks that were pruned while it was trained",
        "merge it into its base with peft's merge_and_unload, and extract a LoRA from the difference of both bases",
        *("lora_E", "ranknum"),
    ),
    "tlora": _refused(
        "T-LoRA",
        "its rank changes with the time of denoising, and it is a difference to a state that the file does not hold",
        "allowed are changes that are one for all times",
        *("q_layer.weight", "p_layer.weight", "lambda_layer"),
    ),
    "network": _refused(
        "a change that depends on the input or is no change of a weight",
        "it is a network of its own",
        "allowed are LoRA, LoHa, LoKr and full differences",
        *("poly_lora_A", "poly_lora_B", "poly_router", "lily_A", "lily_B", "lily_router", "peanut_A", "peanut_B"),
        *("peanut_encoders", "peanut_decoders", "adamss_A", "adamss_B", "deft_P", "deft_R", "osf_svd_params"),
        *("supertuning_values", "supertuning_lora_A", "supertuning_lora_B", "frod_lambda_l", "frod_lambda_s_values"),
        *("pvera_lambda_b", "pvera_lambda_d", "beft_bias", "ln_tuning_layers", "lora_diag", "trainable_tokens_delta"),
    ),
    "sparse": _refused(
        "a low-rank product with a sparse rest",
        "programs differ in how they scale the rest",
        "extract it again without a sparse bias",
        *("bias_indices", "bias_values", "bias_size"),
    ),
    "replacement": _refused(
        "a weight of another shape or in the base's place",
        "it replaces the base's weight, and is no change of it",
        "subtract the base's weight from it, or leave it out",
        *("set_weight", "reshape_weight", "modules_to_save", "weight", "bias"),
    ),
}
"""Name to row; a part is the name in a key that tells the kind, and whatever stands below it belongs to it."""
