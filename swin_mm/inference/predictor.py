"""What trained models do, whether PyTorch runs them or an exported file does."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from swin_mm.configs import ConfigError
from swin_mm.datasets.picture import Colour
from swin_mm.inference.prediction import Prediction
from swin_mm.inference.sliced import Progress
from swin_mm.inference.sources import is_single


class PredictOptions(NamedTuple):
    """Options of `Predictor.predict`."""

    score_thr: float
    batch_size: int
    tta: bool
    sliced: bool | Mapping[str, Any]
    progress: Progress | None


class Predictor:
    """What every model from `load` does.

    Attributes:
        classes: Names of the classes.
        palette: Colour of each, RGB 0-255.
        meta: What else is known of the data that the model was trained on.
    """

    classes: Sequence[str]
    palette: Sequence[Colour]
    meta: dict[str, Any]

    def predict(
        self,
        source: Any,
        *,
        score_thr: float = 0.3,
        batch_size: int = 1,
        tta: bool = False,
        sliced: bool | Mapping[str, Any] = False,
        progress: Progress | None = None,
    ) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """Predicts images.

        Args:
            source: What `open_sources` takes: a path or address, a folder, a pattern, a video, the
                number of a camera, a PIL image, an RGB array, a tensor, or an iterable of these.
            score_thr: Detections below this score are left out.
            batch_size: Images at a time, where there are several.
            tta: Whether to merge predictions of flipped and scaled views of each image.
            sliced: Whether to predict large images in slices, for detectors; or the arguments of
                `SlicedInference`, such as `dict(slice_height=640, slice_width=640)`.
            progress: Called with the number of slices of an image done and of all, or with 1 and 1.

        Returns:
            One prediction for one image, a list for a list or a tuple, else a generator.

        Raises:
            PredictError: There is no such image.
            UnreadableError: An image is damaged.
            ConfigError: The options do not go together.
        """
        if tta and sliced:
            raise ConfigError("tta and sliced do not go together: choose one")
        if not 0 <= score_thr <= 1:
            raise ConfigError(f"score_thr must be from 0 to 1, got {score_thr}")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        options = PredictOptions(score_thr, batch_size, tta, sliced, progress)
        found = self._predict_all(source, options)
        if is_single(source):
            return next(found)
        return list(found) if isinstance(source, list | tuple) else found

    def _predict_all(self, source: Any, options: PredictOptions) -> Iterator[Prediction]:
        raise NotImplementedError
