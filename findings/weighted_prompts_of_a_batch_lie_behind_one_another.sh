#!/usr/bin/env bash
# Library: compel 2.5.1 with transformers 5.23.0 and diffusers 0.42.1 (torch 2.13.0, CPU).
# Behaviour: EmbeddingsProvider.get_embeddings_for_weighted_prompt_fragments takes a batch of prompts, and returns the
#   features of all of them behind one another, as if they were the chunks of one long prompt, without a word.
# Expected: a row for each prompt; a comment in the method says "should have shape (B, 77, 768)".
# Seen: "2 prompts of 16 positions: (1, 32, 16)".
# Date: 2026-11-30
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip --quiet --disable-pip-version-check install torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 compel==2.5.1 2> /dev/null
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PYTHON' | tee seen.txt
import json
from pathlib import Path

import torch
from compel import EmbeddingsProvider
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

words = [chr(number) for number in range(33, 127)]
vocabulary = [*words, *(word + "</w>" for word in words), "<|startoftext|>", "<|endoftext|>"]
Path("vocabulary").mkdir()
Path("vocabulary/vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
Path("vocabulary/merges.txt").write_text("#version: 0.2\n")
tokenizer = CLIPTokenizer.from_pretrained("vocabulary", model_max_length=16)
torch.manual_seed(0)
network = CLIPTextModel(CLIPTextConfig(
    vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=16, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
)).eval()
provider = EmbeddingsProvider(tokenizer, network)
with torch.no_grad():
    features = provider.get_embeddings_for_weighted_prompt_fragments([["a", "b"], ["c", "d"]], [[1.0, 1.4], [1.0, 1.4]])
print(f"2 prompts of 16 positions: {tuple(features.shape)}")
PYTHON
grep -q "2 prompts of 16 positions: (1, 32, 16)" seen.txt
