"""The token classifier: mixed context by hand, columns, sub-words, reports, one short training."""

import json
import random

import pytest
import torch
from tokenizers.normalizers import BertNormalizer
from torch import nn

from projects.token_classification import train
from projects.token_classification.conll import Sentence, list_labels, read_conll
from projects.token_classification.dataset import TokenDataset, encode_words, make_tokenizer
from projects.token_classification.language import (
    ENDINGS,
    FAR_GAP,
    GAPS,
    HEADING,
    TYPES,
    build_lexicon,
    generate_sentences,
)
from projects.token_classification.metric import EntityMetric
from projects.token_classification.model import IGNORED, SwinTokenClassifier
from swin_mm.configs import ConfigError

TOKENS, WINDOW, WIDTH, HEADS = 512, 64, 768, 12


@pytest.fixture(scope="module")
def worked_case():
    """The attention of a block on 512 tokens of width 768 in 8 windows of 64.

    Values are the tokens and scores are zero. Every channel of a token is the number of its window,
    0 to 7, plus its place in it, counted from the middle: -31.5 to 31.5.
    """
    model = SwinTokenClassifier(10, 3, WIDTH, (1,), (HEADS,), WINDOW)
    attn = model.stages[0][0].attn.double().requires_grad_(False)
    nn.init.zeros_(attn.relative_position_bias_table)
    for layer in (attn.qkv, attn.proj):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    attn.qkv.weight[2 * WIDTH :] = torch.eye(WIDTH)
    attn.proj.weight.copy_(torch.eye(WIDTH))
    window = torch.arange(TOKENS) // WINDOW
    place = torch.arange(TOKENS) % WINDOW - 31.5
    return attn, window.double(), place.double()


@pytest.mark.parametrize(
    ("window_factor", "global_factor", "uniform", "own"),
    [
        # Where each token attends to all of its window alike, and where to itself alone.
        (0, 0, lambda w, p: w, lambda w, p: w + p),  # plain attention
        (-1, 0, lambda w, p: 0 * w, lambda w, p: p),  # local centring: A Z V
        (-1, 1, lambda w, p: 0 * w + 3.5, lambda w, p: p + 3.5),  # the mean of 0 to 7 instead
        (-0.5, 0.25, lambda w, p: w / 2 + 0.875, lambda w, p: w / 2 + p + 0.875),
    ],
    ids=["plain", "centred", "global", "linear-mix"],
)
def test_the_worked_case_of_mixed_context(worked_case, window_factor, global_factor, uniform, own):
    attn, window, place = worked_case
    x = (window + place)[None, None, :, None].expand(2, 1, TOKENS, WIDTH)
    assert attn.context_mix.shape == (HEADS, WIDTH // HEADS, 2 * WIDTH // HEADS)
    eye = torch.eye(WIDTH // HEADS).double()
    attn.context_mix.copy_(torch.cat([window_factor * eye, global_factor * eye], dim=1))
    for score, expected in ((0, uniform), (1e4, own)):
        attn.relative_position_bias_table[WINDOW - 1] = score  # of distance 0
        found = attn(x)
        assert found.shape == x.shape
        expected = expected(window, place)[None, None, :, None].expand_as(found)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("length", [1, 7, 32, 45])
def test_every_token_gets_a_prediction(length):
    torch.manual_seed(0)
    model = SwinTokenClassifier(20, 5, 8, (2, 2, 1), (1, 2, 2), 4)
    ids = torch.randint(1, 20, (2, length))
    maps = model.extract(ids)
    lengths = [length, (length + 1) // 2, (length + 3) // 4]
    assert [tuple(m.shape) for m in maps] == [
        (2, 1, tokens, 8 * 2**i) for i, tokens in enumerate(lengths)
    ]
    assert model(ids).shape == (2, length, 5)
    labels = torch.randint(0, 5, (2, length))
    model(ids, labels, mode="loss")["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_only_global_context_reaches_a_far_token():
    torch.manual_seed(0)
    ids = torch.randint(1, 20, (1, 256))
    changed = ids.clone()
    changed[0, 250] = ids[0, 250] % 19 + 1
    for scales, expected in (((), False), (("window", "global"), True)):
        model = SwinTokenClassifier(20, 5, 8, (2, 2), (1, 2), 4, context_scales=scales).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("context_mix"):
                nn.init.normal_(parameter)
        differs = (model(ids) != model(changed)).any(-1)[0]
        assert differs[250] and differs[:200].any() == expected


def test_loss_and_predictions_leave_out_what_has_no_label():
    model = SwinTokenClassifier(20, 3, 8, (1,), (1,), 4)
    model.classify = lambda maps: torch.tensor([[[2.0, 0, 0], [0, 1, 0], [0, 0, 3]]])
    ids, labels = torch.ones(1, 3, dtype=torch.long), torch.tensor([[0, IGNORED, 1]])
    e = torch.e
    by_hand = -torch.tensor([e**2 / (e**2 + 2), 1 / (2 + e**3)]).log().mean()
    torch.testing.assert_close(model(ids, labels, mode="loss")["loss"], by_hand)
    (sample,) = model(ids, labels, torch.tensor([7]), mode="predict")
    found = {key: value.tolist() for key, value in sample.items()}
    assert found == {"sentence": 7, "predicted": [0, 2], "true": [0, 1]}


def test_stages_must_agree():
    with pytest.raises(ValueError, match="must name the same stages"):
        SwinTokenClassifier(20, 3, 8, (1, 1), (1,))


# Two entities of one type beside one another, as in IOB1; a line end of Windows.
COLUMNS = """\
-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
Bonn NNP I-NP I-LOC\r
Berlin NNP I-NP B-LOC
Mitte NNP I-NP I-LOC


Paris NNP I-NP I-LOC
Ann NNP I-NP I-PER"""


def test_columns_are_read_in_either_convention(tmp_path):
    file = tmp_path / "eng.train"
    file.write_text("\ufeff" + COLUMNS, encoding="utf-8", newline="")
    first, second = read_conll(file)
    assert first.words == ["EU", "rejects", "Bonn", "Berlin", "Mitte"]
    assert first.labels == ["B-ORG", "O", "B-LOC", "B-LOC", "I-LOC"]
    assert second == Sentence(["Paris", "Ann"], ["B-LOC", "B-PER"])
    assert list_labels([first]) == ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
    file.write_text("a B-X\nb I-X\nc I-Y\n")
    assert read_conll(file) == [Sentence(["a", "b", "c"], ["B-X", "I-X", "B-Y"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\nb\n", "line 2: a word without a label: 'b'"),
        ("a O\nb PER\n", "line 2: a label must be O, B-TYPE or I-TYPE, got 'PER'"),
        ("a I-\n", "line 1: a label must be"),
        ("\n-DOCSTART- O\n", "holds no sentence"),
        ("\xff O\n", "must be text in UTF-8"),
        (None, "cannot be read .No such file"),
    ],
    ids=["column", "label", "type", "empty", "encoding", "missing"],
)
def test_other_files_are_refused(tmp_path, text, message):
    file = tmp_path / "eng.train"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        read_conll(file)


@pytest.fixture(scope="module")
def tokenizer():
    """Each letter is a piece; zero-width characters are dropped, as by BERT's tokenizer."""
    sentences = [Sentence(["aa", "bb"], ["O", "O"])]
    tokenizer = make_tokenizer(None, sentences, vocab_size=6)
    tokenizer.backend_tokenizer.normalizer = BertNormalizer(lowercase=False)
    return tokenizer


def test_labels_are_at_first_pieces(tokenizer):
    words, labels = ["abba", "a", "\u200b", "bb"], ["B-X", "I-X", "O", "B-X"]
    data = TokenDataset([Sentence(words, labels)], tokenizer, ["O", "B-X", "I-X"], 12)
    (item,) = data
    assert item["labels"].tolist() == [1, -100, -100, -100, 2, 0, 1, *[-100] * 5]
    pieces = ["a", "##b", "##b", "##a", "a", "[UNK]", "b", "##b", *["[PAD]"] * 4]
    assert item["input_ids"].tolist() == tokenizer.convert_tokens_to_ids(pieces)


@pytest.mark.parametrize("max_length", [2, 3, 5, 50])
def test_no_word_of_a_long_sentence_is_lost(tokenizer, max_length):
    """Sequences begin within words too, whose later pieces get no label there."""
    words = ["a", "abba", "bb", "abbaabab", "b"] * 3
    ids, places = encode_words(words, tokenizer, max_length)
    assert ids.shape == places.shape and ids.shape[1] == max_length
    assert places[places >= 0].tolist() == list(range(len(words)))
    tokens = ids[ids != tokenizer.pad_token_id].tolist()
    assert tokens == tokenizer.convert_tokens_to_ids(
        [piece for word in words for piece in tokenizer.tokenize(word)]
    )


def test_labels_that_training_lacks_are_named(tokenizer):
    with pytest.raises(ConfigError, match="training data has no label B-Y, .* sentence 1 .* 'a'"):
        TokenDataset([Sentence(["a"], ["B-Y"])], tokenizer, ["O"], 8)


def test_a_tokenizer_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match="tokenizer .* cannot be loaded"):
        make_tokenizer(str(tmp_path), [], 0)


def test_reports_have_the_counted_values(tmp_path):
    """Three true entities, two found, of which one is right; a sentence in two sequences."""
    names = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    metric = EntityMetric(names, tmp_path, "test data")
    samples = [
        (0, [1, 2, 0], [1, 2, 0]),  # X found
        (1, [3, 0], [1, 0]),  # Y taken for X
        (0, [0, 3], [0, 0]),  # Y missed
    ]
    metric.process(
        None,
        [
            {"sentence": torch.tensor(n), "true": torch.tensor(t), "predicted": torch.tensor(p)}
            for n, t, p in samples
        ],
    )
    scores = metric.compute_metrics(metric.results)
    # Precision 1/2, recall 1/3; 5 of 7 words.
    assert scores == {"f1": pytest.approx(0.4), "accuracy": pytest.approx(5 / 7)}
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["entities"]["X"]["f1-score"] == pytest.approx(2 / 3)
    assert numbers["entities"]["Y"]["support"] == 2
    assert numbers["words"]["B-X"]["precision"] == 0.5
    text = (tmp_path / "report.txt").read_text()
    assert "entities (seqeval)" in text and "micro avg      0.500     0.333     0.400" in text


def test_the_languages_names_follow_from_their_cues():
    """The types are found again by the rules of the docstring; the same seed gives the same."""
    sentences = generate_sentences(200, seed=5)
    assert sentences == generate_sentences(200, seed=5) != generate_sentences(200, seed=6)
    kind_of = {cue: kind for kind, cues in build_lexicon().cues.items() for cue in cues}
    distance_of = {kind: d for d, kinds in TYPES.items() for kind in kinds}
    counts = dict.fromkeys(kind_of.values(), 0)
    for words, labels in sentences:
        cues = [(at, kind_of[word]) for at, word in enumerate(words) if word in kind_of]
        for at, label in enumerate(labels):
            if label[:2] != "B-":
                assert label == "O" or labels[at - 1][2:] == label[2:]
                continue
            counts[label[2:]] += 1
            distance = distance_of[label[2:]]
            assert words[at].endswith(ENDINGS[distance])
            own = [cue for cue in cues if distance_of[cue[1]] == distance]
            if distance == "far":
                (kind,) = {kind for _, kind in own}
                assert len(own) == HEADING
                assert min(abs(place - at) for place, _ in own) > FAR_GAP
            else:
                place, kind = max(cue for cue in own if cue[0] < at)
                low, high = GAPS[distance]
                assert low < at - place <= high + 1
            assert kind == label[2:]
    for kinds in TYPES.values():
        first, second = (counts[kind] for kind in kinds)
        assert abs(first - second) < 0.25 * (first + second)


def test_a_short_training_writes_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["data.train=24", "data.val=6", "data.test=6", "max_epochs=1", "batch_size=8"]
    scores = train.main(["--cfg-options", *options, "model.embed_dims=8", "warmup_steps=2"])
    assert set(scores) == {"f1", "accuracy"} and 0 <= scores["accuracy"] <= 1
    folder = tmp_path / "work_dirs" / "language"
    numbers = json.loads((folder / "report.json").read_text())
    assert numbers["words"]["accuracy"] == pytest.approx(scores["accuracy"])
    assert (folder / "val" / "report.txt").is_file()
    assert (folder / "tokenizer" / "tokenizer.json").is_file()


def test_conll_data_trains_by_its_config(tmp_path):
    """Files in CoNLL-2003's names and form, as its config wants them."""
    draw = random.Random(0)
    for name in ("eng.train", "eng.testa", "eng.testb"):
        rows = [f"{draw.choice('abcdef')} NN I-NP {draw.choice(['O', 'I-PER'])}" for _ in range(40)]
        (tmp_path / name).write_text("-DOCSTART- -X- O O\n\n" + "\n".join(rows) + "\n")
    config = train.DEFAULT_CONFIG.with_name("conll2003.py")
    options = [f"data.folder={tmp_path}", "max_epochs=1", "model.embed_dims=12", "max_length=16"]
    train.main([str(config), "--work-dir", str(tmp_path / "out"), "--cfg-options", *options])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["entities"]) >= {"PER", "micro avg"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_config.py"], "there is no config no_config.py"),
        (["--cfg-options", "data.source=web"], "data.source must be 'language' or 'conll'"),
        ([str(train.DEFAULT_CONFIG.with_name("conll2003.py"))], "data/conll2003/eng.train cannot"),
    ],
    ids=["config", "source", "files"],
)
def test_what_is_missing_is_named(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        train.main([*arguments, "--work-dir", str(tmp_path / "out")])
