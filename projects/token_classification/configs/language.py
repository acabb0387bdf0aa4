"""The built-in language, with mixed context. Minutes on a CPU.

python projects/token_classification/train.py
"""

data = dict(source="language", train=2000, val=300, test=500)  # numbers of sentences
tokenizer = None  # trained on the training data; a folder or a name for one of transformers
vocab_size = 800  # most word pieces of a trained tokenizer
max_length = 104  # tokens of a sequence; longer sentences become several

model = dict(
    type="SwinTokenClassifier",
    embed_dims=32,
    depths=(2, 2, 2),
    num_heads=(2, 4, 8),
    window_size=8,
    context_scales=("window", "global"),
)

batch_size = 16
max_epochs = 6  # the learning rate falls to 0 by a cosine
warmup_steps = 100
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=25),
    checkpoint=dict(type="CheckpointHook", max_keep_ckpts=1, save_best="f1", rule="greater"),
    progress=dict(type="ProgressHook"),
)
