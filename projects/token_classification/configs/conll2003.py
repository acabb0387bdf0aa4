"""CoNLL-2003: people, places, organisations and others in English news.

Its three files are not ours to hand on. Get them from https://www.clips.uantwerpen.be/conll2003/ner/
or from one of its copies, and put them here, as published, in either convention (IOB1 or IOB2):

    data/conll2003/eng.train
    data/conll2003/eng.testa
    data/conll2003/eng.testb

Not yet trained. The tokenizer is trained on the training data; `tokenizer = "bert-base-cased"`
takes that of BERT, which is downloaded unless it names a folder.
"""

_base_ = "language.py"

data = dict(
    _delete_=True,
    source="conll",
    folder="data/conll2003",
    train="eng.train",
    val="eng.testa",
    test="eng.testb",
)
vocab_size = 12_000
max_length = 128

model = dict(embed_dims=96, num_heads=(3, 6, 12), window_size=16, drop_rate=0.1)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
max_epochs = 20
