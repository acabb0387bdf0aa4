"""A page in the browser to try a model on: an image or a video in, pictures and numbers out."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from swin_mm.configs import ConfigError
from swin_mm.datasets.reader import UnreadableError
from swin_mm.inference.model import Predictor
from swin_mm.inference.prediction import Prediction, write_picture
from swin_mm.inference.prediction_files import write_video
from swin_mm.inference.sources import PredictError, is_video, open_video
from swin_mm.structures import IGNORED, Objects, Segments, to_pixels

if TYPE_CHECKING:
    from gradio import Blocks

HOST = "127.0.0.1"
VIEWS = ("all", "boxes", "masks", "label map")
LEAST_SCORE = 0.05
COLUMNS = {
    Objects: ["class", "score", "left", "top", "right", "bottom"],
    Segments: ["class", "pixels"],
    np.ndarray: ["class", "share of pixels"],
}
VIDEO_COLUMNS = ["class", "found", "frames"]
KEPT_SECONDS = 3600  # what was uploaded and what was predicted
# The browser fetches nothing from elsewhere: gradio's page would ask for fonts and scripts.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:"
)


def build_page(model: Predictor, title: str) -> "Blocks":
    """Builds the page of a model; needs gradio."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read at gradio's import
    try:
        import gradio
    except ImportError as error:
        raise ConfigError("the page needs gradio: pip install 'swin-mm[demo]'") from error

    run = _make_handler(model, gradio)
    with gradio.Blocks(
        title=title, analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)
    ) as page:
        gradio.Markdown(f"## {title}\nDrop an image or a video, and press Predict.")
        with gradio.Row():
            with gradio.Column(scale=1):
                file = gradio.File(label="Image or video", elem_id="input", type="filepath")
                score = gradio.Slider(LEAST_SCORE, 1, 0.3, step=0.05, label="Least score")
                view = gradio.Radio(VIEWS, value=VIEWS[0], label="View")
                button = gradio.Button("Predict", variant="primary", elem_id="predict")
            with gradio.Column(scale=2):
                picture = gradio.Image(
                    label="Found",
                    format="png",
                    elem_id="picture",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                )
                video = gradio.Video(label="Found", elem_id="video", visible=False)
                table = gradio.Dataframe(label="Numbers", elem_id="table", interactive=False)
                files = gradio.File(
                    label="Download", file_count="multiple", elem_id="files", interactive=False
                )
        inputs, outputs = [file, score, view], [picture, video, table, files]
        one_at_a_time: dict[str, Any] = dict(concurrency_limit=1, concurrency_id="model")
        button.click(run, inputs, outputs, api_name="predict", **one_at_a_time)
        for changed in (score.release, view.change):
            changed(run, inputs, outputs, api_visibility="private", **one_at_a_time)
    return page


def _make_handler(model: Predictor, gradio: Any) -> Callable:
    """What the page calls; `gradio` is the package."""

    def run(
        file: str | None,
        score: float,
        view: str,
        progress: Any = gradio.Progress(),  # noqa: B008 (gradio looks for it here)
    ) -> tuple:
        try:
            if file is None:
                raise PredictError("choose an image or a video first")
            if is_video(file):
                path, columns, rows, files = predict_video(
                    model, file, score, view, lambda done, total: progress((done, total))
                )
                picture = None
            else:
                picture, columns, rows, files = predict_image(model, file, score, view)
                path = None
        except (PredictError, UnreadableError, ConfigError) as error:
            name = Path(str(file)).name
            text = str(error).replace(str(file), name)
            if isinstance(error, UnreadableError) and not _is_image(file):
                text = f"{name} is neither an image nor a video: choose another file"
            raise gradio.Error(text, print_exception=False) from None
        return (
            gradio.update(value=picture, visible=path is None),
            gradio.update(value=path, visible=path is not None),
            {"headers": columns, "data": rows},
            files,
        )

    return run


def _is_image(file: str | None) -> bool:
    try:
        with Image.open(str(file)):
            return True
    except (UnidentifiedImageError, OSError):
        return False


def serve_page(page: "Blocks", port: int | None = None, wait: bool = True) -> str:
    """Serves a page to this machine alone, and returns its address.

    Args:
        port: By default the first that is free from 7860 on.
        wait: Whether to serve until interrupted.
    """
    import gradio
    from starlette.middleware import Middleware

    font = ["system-ui", "sans-serif"]
    _, address, _ = page.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        ssr_mode=False,
        quiet=True,
        footer_links=[],
        prevent_thread_lock=True,
        theme=gradio.themes.Default(font=font, font_mono=["monospace"]),
        app_kwargs={"middleware": [Middleware(_OwnOrigin)]},
    )
    if wait:
        print(f"the page is at {address} (Ctrl-C ends it)", flush=True)
        page.block_thread()
    return address


class _OwnOrigin:
    """Sends `POLICY` with every answer."""

    def __init__(self, app: Callable) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def send_with_policy(message: dict) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def predict_image(
    model: Predictor, file: str, score: float, view: str
) -> tuple[np.ndarray, list[str], list[list], list[str]]:
    """Predicts an image.

    Returns:
        The picture, columns and rows of the table, and the files to download.
    """
    found = model.predict(file, score_thr=score)
    assert isinstance(found, Prediction)
    picture = show(found, view)
    columns, rows = list_found(found)
    folder = Path(tempfile.mkdtemp(prefix="swin_mm_"))
    name = Path(file).stem
    drawn = folder / f"{name}_found.png"
    write_picture(drawn, picture)
    numbers = folder / f"{name}_found.json"
    content = [dict(zip(columns, row, strict=True)) for row in rows]
    if found.labels is not None:
        content = [{"name": row[0], **one} for row, one in zip(rows, found.to_coco(), strict=True)]
    numbers.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return picture, columns, rows, [str(drawn), str(numbers)]


def predict_video(
    model: Predictor, file: str, score: float, view: str, progress: Callable[[int, int], None]
) -> tuple[str, list[str], list[list], list[str]]:
    """Predicts a video.

    Returns:
        The video with what was found drawn in, columns and rows of the table, and the files to
        download.
    """
    video = open_video(file)
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    path = Path(tempfile.mkdtemp(prefix="swin_mm_"), f"{Path(file).stem}_found.webm")
    counts: Counter[str] = Counter()
    frames: Counter[str] = Counter()

    def pictures() -> Iterator[np.ndarray]:
        found: Any = model.predict(file, score_thr=score)
        for done, one in enumerate(found, start=1):
            yield show(one, view)[: one.image.shape[0]]  # without a legend
            counts.update(one.names)
            frames.update(set(one.names))
            progress(done, max(done, total))

    write_video(path, "VP80", file, pictures())  # which browsers play
    rows = [[name, count, frames[name]] for name, count in counts.most_common()]
    return str(path), VIDEO_COLUMNS, rows, [str(path)]


def show(found: Prediction, view: str) -> np.ndarray:
    """Draws what one of `VIEWS` shows of a prediction: `(h, w, 3)`, uint8, RGB."""
    content: Any = found.content
    has_it = isinstance(content, Objects) and (view == "boxes" or content.masks is not None)
    if view == "label map" and found.label_map is not None:
        content = found.label_map
    elif view != "all" and not has_it:
        raise PredictError(f"this model gives no {view}: choose another view")
    elif view == "boxes":
        content = replace(content, masks=None)
    elif view == "masks":
        content = replace(content, boxes=None)
    elif view == "label map":
        objects, content = content, np.full(found.image.shape[:2], IGNORED)
        # The surest go on top.
        for label, mask in reversed(list(zip(objects.labels, objects.masks, strict=True))):
            content[to_pixels(mask)] = label
    return Prediction(content, found.image, found.classes, found.palette, found.name).plot()


def list_found(found: Prediction) -> tuple[list[str], list[list]]:
    """Columns and rows of the table of a prediction."""
    content = found.content
    if isinstance(content, Objects):
        assert content.boxes is not None and content.scores is not None
        numbers = np.column_stack([content.scores.round(3), content.boxes.round(1)])
        values = numbers.astype(float).round(3).tolist()
    elif isinstance(content, Segments):
        areas = np.bincount(content.ids.ravel(), minlength=len(content) + 1)
        values = [[int(area)] for area in areas[1:]]
    else:
        labels, counts = np.unique(content[content != IGNORED], return_counts=True)
        values = [[round(count / content.size, 4)] for count in counts.tolist()]
    columns = next(columns for kind, columns in COLUMNS.items() if isinstance(content, kind))
    return columns, [[name, *row] for name, row in zip(found.names, values, strict=True)]
