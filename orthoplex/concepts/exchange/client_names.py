"""The names of modules that other programs know, as patterns over a module's name and the ending of its factors."""

from __future__ import annotations

import re

Names = dict[str, re.Pattern[str]]
"""Family, by the name of its layer table, to the names of modules with their endings."""

_KOHYA = r"\.lora_(down|up)\.weight"
_PEFT = r"\.lora_[AB]\.weight"
_OLD = r"\.lora\.(down|up)\.weight"
_BOTH = rf"({_KOHYA}|{_PEFT})"
_ANY = rf"({_KOHYA}|{_PEFT}|{_OLD}|\.lora_[AB](\.default\.weight)?)"
_PATH = r"[\w.-]+"

_UNET = r"(down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding)\b[\w.]*"
_UNET_FLAT = r"(down_blocks_|mid_block_|up_blocks_|conv_in|conv_out|time_embedding_|add_embedding_)\w*"
_CODE_UNET = r"(input_blocks|middle_block|output_blocks|out|time_embed|label_emb)\.[\w.]+"
_CODE_UNET_FLAT = r"(input_blocks|middle_block|output_blocks|out|time_embed|label_emb)_\w+"
_CLIP = r"text_model\.encoder\.layers\.\d+\.[\w.]+"
_CLIP_FLAT = r"text_model_encoder_layers_\d+_\w+"
_ATTENTION = r"\.to_(q|k|v|out)\b"

_FLUX_BLOCKS = r"(single_)?transformer_blocks\.\d+\.[\w.]+"
_FLUX_EMBEDDERS = r"(time_text_embed|time_guidance_embed|context_embedder|x_embedder|norm_out|proj_out)\b[\w.]*"
_FLUX_MODULATION = r"(double_stream_modulation_(img|txt)|single_stream_modulation)\.linear"
_CODE_FLUX_MODULATION = r"(double_stream_modulation_(img|txt)|single_stream_modulation)\.lin"
_CODE_FLUX_BLOCKS = r"(double|single)_blocks\.\d+\.[\w.]+"
_CODE_FLUX_BLOCKS_FLAT = r"(double|single)_blocks_\d+_\w+"
_CODE_FLUX_INPUTS = r"((img|txt|time|vector|guidance)_in|final_layer)"
_CODE_FLUX = rf"({_CODE_FLUX_BLOCKS}|{_CODE_FLUX_INPUTS}\b[\w.]*)"
_CODE_FLUX_FLAT = rf"({_CODE_FLUX_BLOCKS_FLAT}|{_CODE_FLUX_INPUTS}\w*)"
_FLUX2_CODE = r"(diffusion_model|base_model\.model)\.(?!final_layer\.adaLN_modulation)"
"""The last modulation is read with its scale and shift exchanged, which is not what the file says."""
_GUIDANCE = r"distilled_guidance_layer"
_QWEN = r"(transformer_blocks\.\d+|img_in|txt_in|time_text_embed|norm_out|proj_out)\b[\w.]*"
_QWEN_FLAT = r"(transformer_blocks_\d+_|img_in|txt_in|time_text_embed|norm_out|proj_out)\w*"
_Z_BLOCKS = (
    r"(layers|noise_refiner|context_refiner)\.\d+\.(attention\.to_\w+(\.0)?|feed_forward\.w\d|adaLN_modulation\.\d)"
)
_Z_IMAGE = rf"({_Z_BLOCKS}|t_embedder\.{_PATH}|cap_embedder\.{_PATH}|all_(x_embedder|final_layer)\.{_PATH})"
_Z_IMAGE_FLAT = r"(layers|noise_refiner|context_refiner|t_embedder|cap_embedder|all_x_embedder|all_final_layer)_[\w-]+"
_IDEOGRAM_BLOCKS = r"layers\.\d+\.(attention\.(qkv|o)|feed_forward\.w\d|adaln_modulation)"
_T5 = r"encoder\.block\.\d+\.[\w.]+"
_T5_FLAT = r"encoder_block_\d+_\w+"


def _names(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


_COMFY_UNET = (
    rf"(lora_unet|lycoris)_({_UNET_FLAT}|{_CODE_UNET_FLAT}){_ANY}",
    rf"diffusion_model\.{_CODE_UNET}{_ANY}",
    rf"(?!.*(?<!\.processor){_ATTENTION})(unet\.)?{_UNET}({_ANY}|_lora\.(down|up)\.weight)",
)
"""Of the attention, diffusers' names are known with ``processor.`` in them alone."""
_COMFY_FLUX = (
    rf"lora_unet_({_CODE_FLUX_FLAT}|{_GUIDANCE}_\w+){_ANY}",
    rf"diffusion_model\.({_CODE_FLUX}|{_GUIDANCE}\.{_PATH}){_ANY}",
    rf"transformer\.({_FLUX_BLOCKS}|{_FLUX_EMBEDDERS}){_ANY}",
    rf"(lycoris|lora_transformer)_(?!{_GUIDANCE})\w+{_ANY}",
    rf"text_encoders\.(clip_l\.transformer\.{_CLIP}|t5xxl\.transformer\.{_T5}){_ANY}",
)
FORGE: Names = {
    "stable_diffusion": _names(*_COMFY_UNET, rf"lora_te1?_{_CLIP_FLAT}{_ANY}", rf"text_encoder\.{_CLIP}{_ANY}"),
    "stable_diffusion_xl": _names(
        *_COMFY_UNET, rf"lora_te[12]?_{_CLIP_FLAT}{_ANY}", rf"text_encoder(_2)?\.{_CLIP}{_ANY}"
    ),
}
COMFY: Names = {
    **{
        family: _names(names.pattern, rf"text_encoders\.clip_[lg]\.transformer\.{_CLIP}{_ANY}")
        for family, names in FORGE.items()
    },
    "flux": _names(*_COMFY_FLUX, rf"lora_te1?_{_CLIP_FLAT}{_ANY}", rf"lora_te[23]_{_T5_FLAT}{_ANY}"),
    "chroma": _names(*_COMFY_FLUX, rf"lora_te1_{_T5_FLAT}{_ANY}"),
    "qwen_image": _names(
        rf"(lora_unet|lycoris)_{_QWEN_FLAT}{_ANY}", rf"(diffusion_model\.|transformer\.)?{_QWEN}{_ANY}"
    ),
}
SD_SCRIPTS: Names = {
    "stable_diffusion": _names(rf"lora_unet_{_UNET_FLAT}{_KOHYA}", rf"lora_te_{_CLIP_FLAT}{_KOHYA}"),
    "stable_diffusion_xl": _names(rf"lora_unet_{_CODE_UNET_FLAT}{_KOHYA}", rf"lora_te[12]_{_CLIP_FLAT}{_KOHYA}"),
}
DIFFUSERS: Names = {
    "stable_diffusion": _names(
        rf"lora_unet_{_UNET_FLAT}{_KOHYA}",
        rf"lora_te_{_CLIP_FLAT}{_KOHYA}",
        rf"unet\.{_UNET}({_PEFT}|{_OLD})",
        rf"text_encoder\.{_CLIP}({_PEFT}|{_OLD})",
    ),
    "stable_diffusion_xl": _names(
        rf"lora_unet_({_UNET_FLAT}|{_CODE_UNET_FLAT}){_KOHYA}",
        rf"lora_te[12]_{_CLIP_FLAT}{_KOHYA}",
        rf"unet\.{_UNET}({_PEFT}|{_OLD})",
        rf"text_encoder(_2)?\.{_CLIP}({_PEFT}|{_OLD})",
    ),
    "flux": _names(
        rf"lora_unet_{_CODE_FLUX_BLOCKS_FLAT}{_KOHYA}",
        rf"diffusion_model\.{_CODE_FLUX_BLOCKS}{_KOHYA}",
        rf"transformer\.({_FLUX_BLOCKS}|{_FLUX_EMBEDDERS}){_PEFT}",
        rf"lora_transformer_(\w+_attn_\w+|time_text_embed_\w+|context_embedder|x_embedder){_KOHYA}",
        rf"lora_te1?_{_CLIP_FLAT}{_KOHYA}",
        rf"text_encoder\.{_CLIP}{_PEFT}",
    ),
    "chroma": _names(
        rf"lora_unet_{_CODE_FLUX_BLOCKS_FLAT}{_KOHYA}",
        rf"transformer\.({_FLUX_BLOCKS}|{_FLUX_EMBEDDERS}|{_GUIDANCE}\.{_PATH}){_PEFT}",
    ),
    "flux2": _names(
        rf"lora_unet_({_CODE_FLUX_BLOCKS_FLAT}|img_in|txt_in|time_in_\w+|final_layer_linear){_KOHYA}",
        rf"{_FLUX2_CODE}({_CODE_FLUX}|{_CODE_FLUX_MODULATION}){_PEFT}",
        rf"transformer\.({_FLUX_BLOCKS}|{_FLUX_EMBEDDERS}|{_FLUX_MODULATION}){_PEFT}",
    ),
    "qwen_image": _names(
        rf"lora_unet_{_QWEN_FLAT}{_KOHYA}",
        rf"(diffusion_model\.|transformer\.){_QWEN}{_PEFT}",
        rf"(diffusion_model\.)?{_QWEN}{_KOHYA}",
    ),
    "z_image": _names(
        rf"lora_unet_(?!x_embedder|final_layer){_Z_IMAGE_FLAT}{_KOHYA}",
        rf"(diffusion_model\.|transformer\.){_Z_IMAGE}{_PEFT}",
        rf"(diffusion_model\.)?{_Z_IMAGE}{_KOHYA}",
    ),
    "krea2": _names(
        rf"(diffusion_model|base_model\.model)\.{_PATH}{_PEFT}",
        rf"transformer\.{_PATH}{_PEFT}",
    ),
    "anima": _names(rf"diffusion_model\.{_PATH}{_PEFT}", rf"(transformer|text_conditioner)\.{_PATH}{_PEFT}"),
    "ideogram4": _names(
        rf"(diffusion_model\.|conditional_transformer\.)?{_IDEOGRAM_BLOCKS}{_BOTH}",
        rf"transformer\.(?!layers\.\d+\.attention\.(qkv|o)\.){_PATH}{_PEFT}",
    ),
}
INVOKEAI: Names = {
    "stable_diffusion": SD_SCRIPTS["stable_diffusion"],
    "stable_diffusion_xl": _names(
        rf"lora_unet_({_UNET_FLAT}|{_CODE_UNET_FLAT}){_KOHYA}", rf"lora_te[12]_{_CLIP_FLAT}{_KOHYA}"
    ),
}
OPENVINO: Names = {
    "stable_diffusion": _names(rf"lora_unet_{_UNET_FLAT}{_BOTH}", rf"lora_te_{_CLIP_FLAT}{_BOTH}"),
}
STABLE_DIFFUSION_CPP: Names = {
    "stable_diffusion": _names(
        rf"lora_unet_({_UNET_FLAT}|{_CODE_UNET_FLAT}){_KOHYA}",
        rf"lora_te1?_{_CLIP_FLAT}{_KOHYA}",
        rf"unet\.{_UNET}{_BOTH}",
        rf"diffusion_model\.{_CODE_UNET}{_BOTH}",
    ),
}
