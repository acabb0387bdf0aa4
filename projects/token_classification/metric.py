"""How well entities are found: seqeval's report by type, scikit-learn's by label of a word."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from swin_mm.configs import ConfigError

try:
    import seqeval.metrics
    import sklearn.metrics
except ImportError as error:
    raise ConfigError(f"{error.name} is missing: pip install 'swin-mm[text]'") from error


class EntityMetric(BaseMetric):
    """Precision, recall and F1 of whole entities and of single words.

    Prints both reports, and writes them to `report.txt` and, as numbers, `report.json`.

    Args:
        label_names: All labels, as the model counts them.
        folder: Where the reports are written.
        title: What is measured, for the reports.
    """

    def __init__(self, label_names: Sequence[str], folder: str | Path, title: str) -> None:
        super().__init__()
        self.label_names = list(label_names)
        self.folder, self.title = Path(folder), title

    def process(self, data_batch: Any, data_samples: Sequence[Mapping]) -> None:
        """Keeps what the model predicted, in its `predict` mode."""
        for sample in data_samples:
            both = sample["true"].tolist(), sample["predicted"].tolist()
            self.results.append((int(sample["sentence"]), *both))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Joins the sequences of each sentence, and writes the reports.

        Returns:
            `f1` of entities (micro average) and `accuracy` of words.
        """
        sentences: dict[int, tuple[list[str], list[str]]] = {}
        for number, true, predicted in results:
            pair = sentences.setdefault(number, ([], []))
            for labels, found in zip(pair, (true, predicted), strict=True):
                labels += [self.label_names[index] for index in found]
        true, predicted = (list(labels) for labels in zip(*sentences.values(), strict=True))
        words = [sum(labels, []) for labels in (true, predicted)]
        entity, word = (
            dict(digits=3, zero_division=0),
            dict(digits=3, zero_division=0, labels=self.label_names),
        )
        report = (
            f"{self.title}: entities (seqeval)\n"
            f"{seqeval.metrics.classification_report(true, predicted, **entity)}\n"
            f"{self.title}: words (scikit-learn)\n"
            f"{sklearn.metrics.classification_report(*words, **word)}"
        )
        MMLogger.get_current_instance().info(f"\n{report}")
        numbers = {
            "entities": seqeval.metrics.classification_report(
                true, predicted, output_dict=True, **entity
            ),
            "words": sklearn.metrics.classification_report(*words, output_dict=True, **word),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "report.txt").write_text(report, encoding="utf-8")
        (self.folder / "report.json").write_text(
            json.dumps(numbers, indent=1, default=float), encoding="utf-8"
        )
        accuracy = sklearn.metrics.accuracy_score(*words)
        return {"f1": float(numbers["entities"]["micro avg"]["f1-score"]), "accuracy": accuracy}
