"""A server on this machine that has published weights, so that tests need no other."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from swin_mm.checkpoint.published import Weights, find_weights
from swin_mm.configs import find_config

NARROW = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serves a folder; yields its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def publish_narrow(folder: Path, address: str, config: Path) -> tuple[Weights, nn.Module, Any]:
    """Puts weights of a narrow Mask R-CNN there, in the zoo's layout and under a zoo's name.

    Args:
        folder: What is served.
        address: Its address.
        config: Where the config of the model goes.

    Returns:
        What is known of the weights, mmdet's own model that has them, and the config.
    """
    config.write_text(
        f"_base_ = {str(find_config('mask_rcnn_swin_t_3x'))!r}\n"
        f"model = dict(backbone=dict(init_cfg=None, **{NARROW}),\n"
        "    neck=dict(in_channels=[8, 16, 32, 64]))\n"
    )
    cfg = Config.fromfile(config)
    stock = cfg.copy().model
    # mmdet's own backbone, so that the layout is the zoo's
    stock.backbone = dict(type="mmdet.SwinTransformer", out_indices=(0, 1, 2, 3), **NARROW)
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(stock).eval()
    content = {"state_dict": model.state_dict(), "meta": {"CLASSES": tuple(map(str, range(80)))}}
    torch.save(content, folder / "a.pth")
    digest = hashlib.sha256((folder / "a.pth").read_bytes()).hexdigest()[:8]
    (folder / "a.pth").rename(folder / f"narrow-{digest}.pth")
    weights = find_weights("mask_rcnn_swin_t_3x")._replace(
        address=f"{address}/narrow-{digest}.pth", config=str(config)
    )
    return weights, model, cfg
