from dataclasses import FrozenInstanceError, fields, replace

import pytest

from orthoplex import vignette
from orthoplex.adapters import METHODS
from orthoplex.errors import ConfigurationError
from orthoplex.training import TrainingConfig


def test_defaults_are_the_documented_ones():
    config = TrainingConfig()
    assert (config.method, config.basis, config.slot, config.slots) == ("orthogonal", "slot", "auto", 16)
    assert (config.rank, config.layers, config.text_encoder) == ("proportional", "cross-attention-kv", False)
    assert (config.num_vectors, config.erasure, config.erasure_form, config.prior_weight) == (
        2,
        30.0,
        "closed-form",
        0.0,
    )


def test_defaults_are_those_of_the_command_line_and_of_the_shipped_concepts():
    assert TrainingConfig() == TrainingConfig.from_toml(vignette.training_file("orthogonal"))
    assert TrainingConfig() == TrainingConfig.from_toml(None)


def test_a_file_that_does_not_tell_an_option_was_trained_without_it():
    recorded = TrainingConfig.recorded({"steps": 9, "of another version": 1})
    assert (recorded.layers, recorded.erasure, recorded.erasure_form) == ("attention", 0.0, "activation")


def test_every_field_is_documented():
    for item in fields(TrainingConfig):
        assert f"        {item.name}: " in (TrainingConfig.__doc__ or ""), item.name


def test_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TrainingConfig().steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_its_own_learning_rate(method):
    config = TrainingConfig(method=method, layers="cross-attention-kv")
    assert config.weight_learning_rate == 4 * METHODS[method].learning_rate > 0  # keys and values alone
    if not METHODS[method].reads_tokens:
        assert replace(config, layers="attention").weight_learning_rate == METHODS[method].learning_rate
    assert replace(config, learning_rate=0.5).weight_learning_rate == 0.5


def test_a_frozen_down_factor_learns_faster():
    assert METHODS["orthogonal"].learning_rate > 2 * METHODS["lora"].learning_rate


def test_the_whole_weight_learns_as_much_more_slowly_as_it_hears_more():
    config = TrainingConfig()
    size = config.down_scale / config.slots
    assert METHODS["full"].learning_rate == pytest.approx(size * METHODS["orthogonal"].learning_rate, rel=0.1)


def test_full_has_no_rank():
    with pytest.raises(ConfigurationError, match="rank is 4 with method 'full'; allowed is 'proportional'"):
        TrainingConfig(method="full", rank=4)
    assert TrainingConfig(method="full", layers="cross-attention-kv", prior_weight=1.0).rank == "proportional"


def test_adapter_part():
    adapter = TrainingConfig(method="lora", rank=5, alpha=2.0, slot=3, slots=8, down_scale=0.25).adapter
    assert (adapter.method, adapter.rank, adapter.alpha) == ("lora", 5, 2.0)
    assert (adapter.slot, adapter.slots, adapter.down_scale) == (3, 8, 0.25)
    assert TrainingConfig().adapter.slot is None


def test_overrides_are_read_as_toml():
    config = TrainingConfig().with_overrides(
        [
            "steps=7",
            "learning_rate = 1e-3",
            "slot=3",
            "rank=proportional",
            "text_encoder=true",
            "basis=random",
            'trigger_form="token"',
            "min_snr_gamma=5",
            'sample_prompts=["a {trigger}", "b"]',
            "sample_every=5",
        ]
    )
    assert (config.steps, config.learning_rate, config.slot, config.rank) == (7, 1e-3, 3, "proportional")
    assert (config.text_encoder, config.basis, config.trigger_form) == (True, "random", "token")
    assert config.min_snr_gamma == 5.0 and isinstance(config.min_snr_gamma, float)
    assert config.sample_prompts == ("a {trigger}", "b")


def test_overrides_can_say_none():
    assert TrainingConfig(learning_rate=0.1).with_overrides(["learning_rate=none"]).learning_rate is None


def test_later_overrides_win_and_the_original_stays():
    config = TrainingConfig()
    assert config.with_overrides(["steps=1", "steps=2"]).steps == 2
    assert config.steps == 200


@pytest.mark.parametrize(
    ("key", "nearest"), [("stepz", "steps"), ("learning_rat", "learning_rate"), ("erase", "erasure"), ("seeds", "seed")]
)
def test_unknown_key_names_the_nearest(key, nearest):
    with pytest.raises(ConfigurationError, match=f"training has no option '{key}'; did you mean '{nearest}'"):
        TrainingConfig().with_overrides([f"{key}=1"])


def test_override_without_equals_sign():
    with pytest.raises(ConfigurationError, match="override 'steps' has no '='; allowed is key=value"):
        TrainingConfig().with_overrides(["steps"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("steps=many", "steps is 'many'; allowed are whole numbers from 1"),
        ("steps=1.5", "steps is 1.5; allowed are whole numbers from 1"),
        ("steps=true", "steps is True; allowed are whole numbers from 1"),
        ("learning_rate=fast", "learning_rate is 'fast'; allowed are finite numbers above 0, up to 1000000, or none"),
        ("learning_rate=nan", "learning_rate is nan; allowed are finite numbers above 0, up to 1000000, or none"),
        ("text_encoder=1", "text_encoder is 1; allowed are true, false"),
        ("method=3", "method is 3; allowed are texts"),
        ("slot=first", "slot is 'first'; allowed are whole numbers from 0, or 'auto'"),
        (
            "layers=all",
            "layers is 'all'; allowed are 'cross-attention-kv', 'cross-attention', 'attention', 'linear', 'none'",
        ),
        ("basis=fourier", "basis is 'fourier'; allowed are 'slot', 'random', 'gaussian', 'identical', 'half'"),
        ("mixed_precision=fp8", "mixed_precision is 'fp8'; allowed are 'no', 'bf16', 'auto'"),
        pytest.param("steps=" + "[" * 9999, "steps is '.*'; allowed are whole numbers from 1", id="nested"),
        ("sample_prompts=[1]", r"sample_prompts is \[1\]; allowed are lists of texts"),
    ],
)
def test_wrong_types_are_named(entry, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfig().with_overrides([entry])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("steps=0", "steps is 0; allowed are whole numbers from 1"),
        ("batch_size=-1", "batch_size is -1; allowed are whole numbers from 1"),
        ("caption_dropout=1.5", "caption_dropout is 1.5; allowed are finite numbers from 0 to 1"),
        ("slot=-1", "slot is -1; allowed are whole numbers from 0"),
        ("rank=0", "rank is 0; allowed are whole numbers from 1 and 'proportional'"),
        ("token_steps=200", "token_steps is 200 of 200 steps; method 'orthogonal' allows 0 to 199"),
        (
            "token_vectors=each",
            "token_vectors is 'each'; allowed are 'shared', 'frozen', 'rare word', 'layer-wise', 'keys-and-values', "
            "'values'",
        ),
        ("token_start=sks", "token_start is 'sks'; allowed are 'class word', 'rare word', 'rare and class word'"),
        ("token_steps=-1", "token_steps is -1; allowed are whole numbers from 0"),
        ("dual_ridge=0", "dual_ridge is 0; allowed are finite numbers above 0"),
        ("num_vectors=17", "num_vectors is 17; allowed are whole numbers from 1 to 16"),
        ("erasure=-0.1", "erasure is -0.1; allowed are finite numbers from 0"),
        ("learning_rate=0", "learning_rate is 0; allowed are finite numbers above 0"),
        ("min_snr_gamma=0", "min_snr_gamma is 0; allowed are finite numbers above 0"),
        ("learning_rate=1e300", "learning_rate is 1e.300; allowed are finite numbers above 0, up to 1000000"),
        ("token_learning_rate=1e300", "token_learning_rate is 1e.300"),
        ("weight_decay=1e300", "weight_decay is 1e.300"),
        ("down_scale=-1", "down_scale is -1.0; allowed are finite numbers above 0"),
        ("method=whole", "method is 'whole'; allowed are lora, orthogonal"),
    ],
)
def test_values_out_of_range_are_named(entry, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfig().with_overrides([entry])


def test_dual_wants_layers_that_see_the_text():
    with pytest.raises(ConfigurationError, match="method is 'dual' with layers 'attention' and text_encoder False"):
        TrainingConfig(method="dual", layers="attention")


def test_prior_preservation_needs_pictures():
    with pytest.raises(ConfigurationError, match="prior_weight is 0.5 and prior_pictures is 0"):
        TrainingConfig(prior_weight=0.5, prior_pictures=0)


def test_toml_file(tmp_path):
    path = tmp_path / "anna.toml"
    path.write_text('method = "lora"\nsteps = 9\nerasure = 1\nsample_prompts = ["x"]\nsample_every = 5\n')
    config = TrainingConfig.from_toml(path)
    assert (config.method, config.steps, config.erasure, config.sample_prompts) == ("lora", 9, 1.0, ("x",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = ", "cannot be read"),
        ("step = 3", "training has no option 'step'; did you mean 'steps'"),
        ("steps = 'x'", "steps is 'x'"),
        pytest.param("steps = " + "[" * 9999, "cannot be read", id="nested"),
    ],
)
def test_toml_errors_name_the_file(tmp_path, text, message):
    path = tmp_path / "anna.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"configuration .*anna.toml.*{message}"):
        TrainingConfig.from_toml(path)


def test_a_byte_order_mark_is_no_key(tmp_path):
    path = tmp_path / "anna.toml"
    path.write_text("steps = 9\n", encoding="utf-8-sig")
    assert TrainingConfig.from_toml(path).steps == 9


def test_missing_toml_file(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere.toml cannot be read"):
        TrainingConfig.from_toml(tmp_path / "nowhere.toml")


def test_json_round_trip():
    config = TrainingConfig(sample_prompts=("a", "b"), sample_every=5, rank=3, slot=2, learning_rate=0.1)
    assert TrainingConfig.from_mapping(config.to_json()) == config


def test_the_first_steps_are_the_token_vectors_for_dual_alone():
    assert TrainingConfig().first_steps == 0
    config = TrainingConfig(method="dual", layers="cross-attention-kv", steps=90, rank=0, duals=1)
    assert (config.first_steps, config.adapter.duals, config.adapter.rank) == (30, 1, 0)
    assert TrainingConfig(token_steps=7).first_steps == 7
    with pytest.raises(ConfigurationError, match="token_steps is 0 of 200 steps; method 'dual' allows 1 to 199"):
        TrainingConfig(method="dual", layers="cross-attention-kv", token_steps=0)
    with pytest.raises(ConfigurationError, match="steps is 1; method 'dual' needs 2 or more"):
        TrainingConfig(method="dual", layers="cross-attention-kv", steps=1)
    with pytest.raises(ConfigurationError, match="duals is 3; allowed are 1 to 2, num_vectors"):
        TrainingConfig(method="dual", layers="cross-attention-kv", duals=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"token_vectors": "frozen", "layers": "none"},
            "token_vectors is 'frozen' and layers is 'none'; allowed are 's",
        ),
        (
            {"token_vectors": "frozen", "token_steps": 9},
            "token_vectors is 'frozen' and token_steps is 9; allowed are 's",
        ),
        ({"layers": "none", "token_steps": 9}, "token_steps is 9 and layers is 'none', .*; allowed is none"),
        ({"layers": "none", "text_encoder": True}, "text_encoder is True and layers is 'none', .*; allowed is false"),
        (
            {"layers": "none", "erasure": 0.5, "erasure_form": "activation"},
            "erasure is 0.5 and layers is 'none', with which .*; allowed is 0",
        ),
        ({"layers": "none", "prior_weight": 0.5}, "prior_weight is 0.5 and layers is 'none', .*; allowed is 0"),
        ({"layers": "none", "method": "dual"}, "method is 'dual' with layers 'none'"),
        ({"token_vectors": "layer-wise", "method": "dual"}, "token_vectors is 'layer-wise' and method is 'dual'"),
        (
            {"token_vectors": "keys-and-values", "method": "dual"},
            "token_vectors is 'keys-and-values' and method is 'dual'",
        ),
        (
            {"token_vectors": "keys-and-values", "token_norm_limit": 0.5},
            "token_norm_limit is 0.5 and token_vectors is 'keys-and-values', .*; allowed is none",
        ),
        (
            {"token_vectors": "values", "token_norm_limit": 0.5},
            "token_norm_limit is 0.5 and token_vectors is 'values', .*; allowed is none",
        ),
        (
            {"token_vectors": "values", "token_start": "rare word"},
            "token_start is 'rare word' and token_vectors is 'values', which locks keys .*; allowed is 'class word'",
        ),
        ({"token_vectors": "frozen", "method": "dual"}, "token_vectors is 'frozen' and method is 'dual', whose"),
    ],
)
def test_token_variants_that_leave_nothing_to_learn_are_named(values, message):
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfig(**values)


def test_token_vectors_alone_learn_in_all_steps():
    assert TrainingConfig(layers="none", token_steps=0, steps=1).first_steps == 1
    assert TrainingConfig(token_vectors="layer-wise", token_steps=9).first_steps == 9
    assert TrainingConfig().with_overrides(["layers=none"]).layers == "none"
    with pytest.raises(ConfigurationError, match="token_steps is 200 of 200 .*with layers 'none' only token vectors"):
        TrainingConfig(token_steps=200)


def test_file_and_entries_come_together_before_anything_is_checked(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('method = "dual"\ntoken_steps = 100\n')
    config = TrainingConfig.from_toml(path, overrides=["layers=cross-attention-kv", "token_steps=2", "steps=9"])
    assert (config.method, config.layers, config.first_steps, config.steps) == ("dual", "cross-attention-kv", 2, 9)
    assert TrainingConfig.from_toml(None, overrides=["steps=3", "steps=4"]).steps == 4


@pytest.mark.parametrize("digits", (400, 5000))
def test_numbers_that_no_float_holds_are_refused(digits):
    with pytest.raises(ConfigurationError, match="erasure is "):
        TrainingConfig().with_overrides([f"erasure={'9' * digits}"])
