"""From sentences to batches: the tokenizer, and the alignment of labels with sub-words."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import ConfigDict
from torch import Tensor
from torch.utils.data import Dataset

from projects.token_classification.conll import Sentence, read_conll
from projects.token_classification.language import generate_sentences
from projects.token_classification.model import IGNORED
from swin_mm.configs import ConfigError

try:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.trainers import WordPieceTrainer
    from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
except ImportError as error:
    raise ConfigError(f"{error.name} is missing: pip install 'swin-mm[text]'") from error

SPLITS = ("train", "val", "test")


def load_splits(data: Mapping) -> dict[str, list[Sentence]]:
    """Loads or generates the sentences of each split.

    Args:
        data: `dict(source="language", train=2000, val=300, test=300)`, with the numbers of
            sentences; or `dict(source="conll", folder=..., train=..., val=..., test=...)`, with
            names of files, and arguments of `read_conll` beside them.

    Raises:
        ConfigError: The source is unknown, or a file cannot be used.
    """
    settings = dict(data)
    source = settings.pop("source", None)
    splits = {name: settings.pop(name) for name in SPLITS}
    if source == "language":
        return {
            name: generate_sentences(count, seed)
            for seed, (name, count) in enumerate(splits.items())
        }
    if source == "conll":
        folder = Path(settings.pop("folder", "."))
        return {name: read_conll(folder / file, **settings) for name, file in splits.items()}
    raise ConfigError(f"data.source must be 'language' or 'conll', got {source!r}")


def make_tokenizer(
    name: str | None, sentences: Iterable[Sentence], vocab_size: int
) -> PreTrainedTokenizerBase:
    """Loads a tokenizer, or trains one of word pieces, which needs no download.

    Args:
        name: A folder or a name that `transformers.AutoTokenizer` knows; `None` to train one.
        sentences: What to train it on.
        vocab_size: Most pieces of a trained one.

    Raises:
        ConfigError: It cannot be loaded, or cannot say which word a piece is of.
    """
    if name is not None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, add_prefix_space=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"tokenizer {name!r} cannot be loaded: {error}") from error
        if not tokenizer.is_fast or tokenizer.pad_token is None:
            raise ConfigError(
                f"tokenizer {name!r} must be a fast one with a padding token: only these say "
                "which word a piece is of, and fill sequences up"
            )
        return tokenizer
    pieces = Tokenizer(WordPiece(unk_token="[UNK]"))
    pieces.pre_tokenizer = BertPreTokenizer()
    trainer = WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=["[PAD]", "[UNK]"], show_progress=False
    )
    pieces.train_from_iterator((" ".join(words) for words, _ in sentences), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="[PAD]", unk_token="[UNK]", padding_side="right"
    )


class TokenDataset(Dataset):
    """Sentences as sequences of one length, with the label of each word at its first piece.

    A sentence with more than `max_length` tokens becomes several sequences, so no word is left
    out; one that the tokenizer turns into nothing, such as a zero-width space, is read as unknown.

    Args:
        sentences: Words and labels.
        tokenizer: A fast one of `transformers`.
        label_names: All labels; what the model predicts are places in this list.
        max_length: Tokens of a sequence; shorter ones are filled up. Fixed, so that what is
            predicted for a sentence does not depend on the others of its batch.

    Raises:
        ConfigError: A sentence has a label that is not in `label_names`.
    """

    def __init__(
        self,
        sentences: Sequence[Sentence],
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str],
        max_length: int,
    ) -> None:
        index_of = {name: index for index, name in enumerate(label_names)}
        self.items: list[dict[str, Tensor]] = []
        for number, (words, labels) in enumerate(sentences):
            if unknown := set(labels) - set(index_of):
                raise ConfigError(
                    f"training data has no label {', '.join(sorted(unknown))}, which sentence "
                    f"{number + 1} of other data has: {' '.join(words[:8])!r}"
                )
            ids, places = encode_words(words, tokenizer, max_length)
            wanted = torch.tensor([*(index_of[label] for label in labels), IGNORED])
            for row, at in zip(ids, places, strict=True):
                self.items.append(
                    {"input_ids": row, "labels": wanted[at], "sentence": torch.tensor(number)}
                )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.items[index]


def encode_words(
    words: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[Tensor, Tensor]:
    """Turns words into sequences of tokens.

    Returns:
        Token ids, `(S, max_length)` for `S` sequences, one for most sentences; and of which word
        each token is the first piece, -1 for the others, in the same shape.
    """
    for known in (words, [w if tokenizer.tokenize(w) else tokenizer.unk_token for w in words]):
        encoded = tokenizer(
            list(known),
            is_split_into_words=True,
            truncation=True,
            max_length=max_length,
            return_overflowing_tokens=True,
            padding="max_length",
        )
        ids = torch.tensor(encoded["input_ids"])
        places, previous = torch.full(ids.shape, -1), None
        for row in range(len(ids)):
            for column, word in enumerate(encoded.word_ids(row)):
                # A word may go on in the next sequence, whose first piece is not its first.
                if word is not None and word != previous:
                    places[row, column] = word
                    previous = word
        if (places >= 0).sum() == len(words):
            break
    return ids, places


def loader_settings(dataset: TokenDataset, batch_size: int, shuffle: bool) -> ConfigDict:
    """What mmengine's runner builds a data loader from."""
    return ConfigDict(
        dataset=dataset,
        batch_size=batch_size,
        sampler=dict(type="DefaultSampler", shuffle=shuffle),
        collate_fn=dict(type="default_collate"),
    )
