"""Token classification with windowed attention; importing this registers the classifier."""

from projects.token_classification.model import SwinTokenClassifier

__all__ = ["SwinTokenClassifier"]
