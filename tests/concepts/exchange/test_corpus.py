import pytest

from orthoplex.concepts.exchange import read_lora
from orthoplex.concepts.exchange.contents import lora_contents
from orthoplex.errors import OrthoplexError
from orthoplex.files import write_tensors
from tests.concepts.exchange.corpus import CORPUS, WHOLE


def test_the_corpus_is_large():
    assert len(CORPUS) >= 80


@pytest.mark.parametrize("name", CORPUS)
def test_every_file_is_read_or_says_why_not(tmp_path, name):
    odd, path = CORPUS[name], tmp_path / "odd.safetensors"
    write_tensors(odd.tensors, path, odd.metadata)
    if odd.outcome == WHOLE:
        lora = read_lora(path, family=odd.asked)
        assert (lora.family, lora.version, lora.style, lora.left_out) == (odd.family, odd.version, odd.style, {})
        changes = [lora.layers[layer] for layer in lora.layers]  # all numbers can be read
        assert len(changes) + len(lora.differences) + len(lora.embeddings) > 0
        return
    with pytest.raises(OrthoplexError) as error:
        read_lora(path, family=odd.asked)
    assert odd.outcome in str(error.value) and "\n" not in str(error.value)
    if odd.partial is None:
        return
    lora = read_lora(path, family=odd.asked, partial=True)
    assert len(lora.layers) == odd.partial and lora.left_out
    used = {key for source in lora_contents(path, odd.asked).layers.values() for key in source.module.keys.values()}
    assert used | lora.left_out.keys() == odd.tensors.keys()
