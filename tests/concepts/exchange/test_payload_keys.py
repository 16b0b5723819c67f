"""From the keys of a file to modules, parts and kinds of payload; torch is not needed for it."""

import subprocess
import sys

import pytest

from orthoplex.concepts.exchange.payloads import PAYLOADS, KeyParts, form_of, load_payload, payloads_of, split_key
from orthoplex.errors import ConfigurationError

READ = [name for name, row in PAYLOADS.items() if not row.refusal]
REFUSED = [name for name, row in PAYLOADS.items() if row.refusal]


def test_reading_rows_loads_no_torch():
    code = (
        "import sys\nfrom orthoplex.concepts.exchange.payloads import form_of, payloads_of, split_key\n"
        "assert split_key('a.lora_A.weight').part == 'down' and payloads_of(['diff']) == ['difference']\n"
        "assert form_of('low-rank', {'up': (4, 2), 'down': (2, 3)}).rank == 2\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("key", "module", "part", "adapter"),
    [
        ("lora_unet_x.lora_down.weight", "lora_unet_x", "down", ""),
        ("lora_unet_x.lora_up.weight", "lora_unet_x", "up", ""),
        ("lora_unet_x.lora_mid.weight", "lora_unet_x", "mid", ""),
        ("lora_unet_x.alpha", "lora_unet_x", "alpha", ""),
        ("lora_unet_x.scale", "lora_unet_x", "scale", ""),
        ("unet.a.to_q.lora_A.weight", "unet.a.to_q", "down", ""),
        ("unet.a.to_q.lora_B.weight", "unet.a.to_q", "up", ""),
        ("unet.a.to_q.lora_A.default.weight", "unet.a.to_q", "down", "default"),
        ("unet.a.to_q.lora_B.anna-2.weight", "unet.a.to_q", "up", "anna-2"),
        ("unet.a.to_q.lora_A", "unet.a.to_q", "down", ""),
        ("unet.a.to_q.lora_B", "unet.a.to_q", "up", ""),
        ("unet.a.to_q.lora_B.bias", "unet.a.to_q", "up_bias", ""),
        ("unet.a.to_q.lora_B.default.bias", "unet.a.to_q", "up_bias", "default"),
        ("unet.a.to_q.lora.down.weight", "unet.a.to_q", "down", ""),
        ("unet.a.processor.to_q_lora.up.weight", "unet.a.processor.to_q", "up", ""),
        ("te.a.q_proj.lora_linear_layer.down.weight", "te.a.q_proj", "down", ""),
        ("te.embed.lora_embedding_A", "te.embed", "embedding_down", ""),
        ("te.embed.lora_embedding_B.default", "te.embed", "embedding_up", "default"),
        ("x.hada_w2_b", "x", "w2_b", ""),
        ("x.hada_t1.default", "x", "t1", "default"),
        ("x.lokr_w1", "x", "lokr_w1", ""),
        ("x.lokr_w2_a.default", "x", "lokr_w2_a", "default"),
        ("x.lokr_t2", "x", "lokr_t2", ""),
        ("x.diff", "x", "diff", ""),
        ("x.diff_b", "x", "diff_b", ""),
        ("x.w_norm", "x", "w_norm", ""),
        ("x.b_norm", "x", "diff_b", ""),
        ("x.dora_scale", "x", "dora_scale", ""),
        ("x.lora_magnitude_vector.default.weight", "x", "lora_magnitude_vector.default.weight", ""),
        ("x.oft_R.default.weight", "x", "oft_R.default.weight", ""),
        ("x.glora_A.default.lora_A.weight", "x", "glora_A.default.lora_A.weight", ""),
        ("x.a1.weight", "x", "a1.weight", ""),
        ("x.modules_to_save.default.weight", "x", "modules_to_save.default.weight", ""),
        ("model.layer.weight", "model.layer", "weight", ""),
        ("model.rescale.lora_A.weight", "model.rescale", "down", ""),
    ],
)
def test_keys_are_taken_apart(key, module, part, adapter):
    assert split_key(key) == KeyParts(module, part, adapter)


@pytest.mark.parametrize("key", ["alpha", "lora_A.weight", "x", "x.lora_A.a.b.weight", "x.lora_C.weight", ""])
def test_other_keys_are_nobodys(key):
    assert split_key(key) is None or split_key(key).part == "weight"


def test_every_part_of_every_row_is_read_back():
    for row in PAYLOADS.values():
        for part, endings in row.parts.items():
            for ending in endings:
                read = split_key("m.n" + ending.replace("{adapter}", "anna"))
                assert read == KeyParts("m.n", part, "anna" if "{adapter}" in ending else ""), ending


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        (("down", "up", "alpha"), ["low-rank"]),
        (("down", "mid", "up"), ["low-rank"]),
        (("down", "up", "up_bias", "scale"), ["low-rank", "low-rank bias"]),
        (("down", "up", "diff_b", "alpha"), ["low-rank", "bias difference"]),
        (("diff", "diff_b"), ["difference", "bias difference"]),
        (("w_norm", "diff_b"), ["norm difference", "bias difference"]),
        (("diff_b",), ["bias difference"]),
        (("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2", "alpha"), ["hadamard"]),
        (("lokr_w1", "lokr_w2", "alpha"), ["kronecker"]),
        (("lokr_w1", "lokr_w2_a", "lokr_w2_b", "lokr_t2"), ["kronecker"]),
        (("embedding_down", "embedding_up"), ["low-rank embedding"]),
        (("down", "up", "alpha", "dora_scale"), ["dora"]),
        (("oft_blocks", "alpha"), ["oft"]),
        (("weight", "on_input"), ["ia3"]),
        (("weight",), ["replacement"]),
        ((), []),
    ],
)
def test_parts_tell_the_kinds(parts, names):
    assert payloads_of(parts) == names


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("up", "alpha"), r"a low-rank product \(LoRA, LoCon\) has the parts up, alpha; allowed are down, up"),
        (("down", "up_bias"), "has the parts down; allowed are down, up"),
        (("alpha",), "has the parts alpha without what they belong to"),
        (("diff", "alpha"), "has the parts alpha without what they belong to"),
        (("mid", "diff_b"), "has the parts mid without what they belong to"),
        (("down", "up", "diff"), "has a low-rank product .* and a full difference of a weight; allowed is one change"),
        (("down", "up", "up_bias", "diff_b"), "allowed is one change of a bias"),
        (("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2"), "has the parts lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2;"),
        (("w1_a", "w1_b", "w2_a"), "has the parts w1_a, w1_b, w2_a; allowed are w1_a, w1_b, w2_a, w2_b"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    with pytest.raises(ConfigurationError, match=message):
        payloads_of(parts)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_kinds_say_why_and_what_to_do(name):
    row = PAYLOADS[name]
    assert "; " in row.refusal and row.form is None
    with pytest.raises(ConfigurationError, match="^is .*: "):
        load_payload(name)
    with pytest.raises(ConfigurationError, match="^is .*: "):
        form_of(name, {})


@pytest.mark.parametrize("name", READ)
def test_rows_name_their_class(name):
    payload = load_payload(name)
    assert type(payload).form is PAYLOADS[name].form
    assert {part for parts in PAYLOADS[name].required for part in parts} <= {*PAYLOADS[name].parts}
