"""The numbers of the collections of pictures: what is learned from and what is measured on never meet."""

#: the pictures under `work/pictures`
COLLECTION = 1
#: what prompt-following is measured on (`pretraining.measure`, `pretraining.diagnose`)
MEASURED = 2
#: what the shipped heads are measured on (`pretraining.heads`)
HEADS = 3
#: the composites that the denoiser learns from
COMPOSITES = 4
#: the painted pictures that it learns from beside them
PAINTED = 5
