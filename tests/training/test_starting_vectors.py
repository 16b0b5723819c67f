import pytest
import torch

from orthoplex.activations.random_concepts import replaced_vectors, word_spread
from orthoplex.errors import ConfigurationError
from orthoplex.training.starting_vectors import initial_vectors
from tests.pico import tokens_of

DIM = 24


@pytest.fixture
def tokens(base):
    with base.with_tokens(tokens_of({"<anna>": torch.ones(DIM), "<anna>_1": torch.zeros(DIM)})) as names:
        yield names


def test_ids_spell_out_every_vector(base, tokens):
    row = base.family.words.ids(["a photo of <anna> person"])[0].tolist()
    numbers = base.pipeline.tokenizer.convert_tokens_to_ids(list(tokens))
    assert [i for i in row if i in numbers] == numbers
    assert base.family.words.ids(["", "a"]).shape == (2, base.pipeline.tokenizer.model_max_length)


def test_ids_are_the_pipelines_own(base, tokens):
    prompt = "a photo of <anna> person"
    theirs, _ = base.pipeline.encode_prompt(prompt, base.device, 1, False)
    with torch.no_grad():
        ours = base.family.condition(base.family.words.ids([prompt])).features
    torch.testing.assert_close(ours, theirs)


def test_class_vector_is_the_mean_over_its_tokens(base):
    table = base.pipeline.text_encoder.get_input_embeddings().weight
    ids = base.pipeline.tokenizer("forest night", add_special_tokens=False).input_ids
    assert len(ids) == 2
    torch.testing.assert_close(base.family.words.class_vector("forest night"), table[ids].mean(0))


def test_class_word_without_tokens(base):
    with pytest.raises(ConfigurationError, match="class word '' has no tokens"):
        base.family.words.class_vector("")


def test_initial_vectors(base):
    vectors = initial_vectors(base, "person", 3, torch.Generator().manual_seed(0))
    word = base.family.words.class_vector("person")
    spread = word_spread(base).deviation
    assert vectors.shape == (3, DIM)
    assert torch.equal(vectors[0], word)
    assert not torch.equal(vectors[1], vectors[2])
    assert 0.0 < (vectors[1:] - word).std() < 0.2 * spread.mean()
    again = initial_vectors(base, "person", 3, torch.Generator().manual_seed(0))
    assert torch.equal(vectors, again)


def test_replaced_vectors_reach_the_features_and_get_gradients(base, tokens):
    ids = base.family.words.ids(["a photo of <anna>", "a dog"])
    vectors = torch.randn(2, DIM, requires_grad=True)
    plain = base.family.condition(ids).features
    with replaced_vectors(base, tokens, vectors):
        features = base.family.condition(ids).features
    features[0].square().sum().backward()
    assert vectors.grad is not None and (vectors.grad.norm(dim=1) > 0).all()
    assert not torch.allclose(features[0], plain[0])
    assert torch.equal(features[1], plain[1])
    assert base.pipeline.text_encoder.get_input_embeddings().weight.grad is None


def test_the_same_vectors_as_rows_of_the_table(base):
    vectors = torch.randn(2, DIM)
    names = ("<anna>", "<anna>_1")
    with base.with_tokens(tokens_of(dict(zip(names, vectors, strict=True)))):
        expected = base.family.condition(base.family.words.ids(["a drawing of <anna>"])).features
    with (
        base.with_tokens(tokens_of(dict.fromkeys(names, torch.zeros(DIM)))) as names,
        replaced_vectors(base, names, vectors),
    ):
        torch.testing.assert_close(
            base.family.condition(base.family.words.ids(["a drawing of <anna>"])).features, expected
        )


def test_each_prompt_may_have_its_own_vectors(base, tokens):
    ids = base.family.words.ids(["a <anna>", "a <anna>"])
    each = torch.randn(2, 2, DIM)
    with replaced_vectors(base, tokens, each):
        both = base.family.condition(ids).features
    for i in range(2):
        with replaced_vectors(base, tokens, each[i]):
            torch.testing.assert_close(base.family.condition(ids[i : i + 1]).features, both[i : i + 1])


def test_replacement_ends_with_the_block(base, tokens):
    ids = base.family.words.ids(["a <anna>"])
    before = base.family.condition(ids).features
    with pytest.raises(RuntimeError), replaced_vectors(base, tokens, torch.randn(2, DIM)):
        raise RuntimeError
    assert torch.equal(base.family.condition(ids).features, before)
