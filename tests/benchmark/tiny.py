"""A whole experiment that takes seconds."""

TEXT = """
base = "{base}"
resolution = 32
seeds = [0]

[training]
steps = 2
batch_size = 2
rank = 2
layers = "cross-attention-kv"
num_vectors = 1
erasure = 0.0
erasure_form = "activation"
mixed_precision = "no"

[prompts]
person = ["{{trigger}}", "{{trigger}} in a forest"]
subject = ["a {{trigger}}"]

[pictures]
num_images = 1
num_inference_steps = 1

[encoder]
layer = "block-3"
picture_size = 32

{concepts}

[[variants]]
name = "slots"

[[variants]]
name = "lora sum"
training = {{ method = "lora" }}

[[variants]]
name = "lora mean"
training = {{ method = "lora" }}
algorithm = "mean"
"""


def experiment_file(folder, base, sources):
    concepts = "".join(
        f'[[concepts]]\nname = "{s.name}"\nkind = "{s.kind}"\nclass_word = "{s.class_word}"\nfolder = "{s.folder}"\n'
        for s in sources
    )
    path = folder / "tiny.toml"
    path.write_text(TEXT.format(base=base, concepts=concepts))
    return path
