"""Sentences with a label for each word, in CoNLL's column format."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from swin_mm.configs import ConfigError

DOCUMENT_START = "-DOCSTART-"


class Sentence(NamedTuple):
    """Words, and their labels `O`, `B-TYPE` or `I-TYPE`."""

    words: list[str]
    labels: list[str]


def read_conll(path: str | Path, word_column: int = 0, label_column: int = -1) -> list[Sentence]:
    """Reads a file of one word a line, columns apart by spaces, sentences apart by empty lines.

    Labels of either convention, IOB1 (CoNLL-2003 as published) and IOB2, come out as IOB2.

    Args:
        path: The file, in UTF-8.
        word_column, label_column: Which columns to read; negative ones count from the end.

    Raises:
        ConfigError: There is no such file, it is no such text, or it holds no sentence.

    Source:
        https://www.clips.uantwerpen.be/conll2003/ner/
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); the config's `data` says where it is"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} must be text in UTF-8 ({error.reason})") from error
    sentences, rows = [], []
    for number, line in enumerate([*lines, ""], start=1):
        columns = line.split()
        if columns and columns[0] != DOCUMENT_START:
            try:
                rows.append((columns[word_column], columns[label_column]))
            except IndexError:
                raise ConfigError(
                    f"{path}, line {number}: columns {word_column} and {label_column} are wanted, "
                    f"but there are only {len(columns)}: {line!r}"
                ) from None
            if len(columns) < 2:
                raise ConfigError(f"{path}, line {number}: a word without a label: {line!r}")
            if (label := rows[-1][1]) != "O" and not (label[:2] in ("B-", "I-") and label[2:]):
                raise ConfigError(
                    f"{path}, line {number}: a label must be O, B-TYPE or I-TYPE, got {label!r}"
                )
        elif rows:
            words, labels = zip(*rows, strict=True)
            sentences.append(Sentence(list(words), to_iob2(labels)))
            rows = []
    if not sentences:
        raise ConfigError(f"{path} holds no sentence")
    return sentences


def to_iob2(labels: Sequence[str]) -> list[str]:
    """Makes every entity begin with `B-`; IOB1 has that only between entities of one type."""
    result, previous = [], "O"
    for label in labels:
        is_first = label.startswith("I-") and previous[2:] != label[2:]
        result.append("B-" + label[2:] if is_first else label)
        previous = label
    return result


def list_labels(sentences: Iterable[Sentence]) -> list[str]:
    """Names all labels: `O`, then both of each type that occurs, by alphabet."""
    types = {label[2:] for _, labels in sentences for label in labels if label != "O"}
    return ["O", *(f"{position}-{name}" for name in sorted(types) for position in "BI")]
