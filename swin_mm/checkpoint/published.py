"""Published detectors and segmentors with a Swin backbone, by name.

Names, addresses and results are those of the model zoos of mmdet and mmseg, whose `metafile.yml`
come with the packages, and of https://github.com/SwinTransformer/Swin-Transformer-Object-Detection.
"""

import re
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from swin_mm.checkpoint.errors import CheckpointError

ZOOS = ("mmdet", "mmseg")
RELEASES = "https://github.com/SwinTransformer/storage/releases/download"
# By recipe: name and folder of the releases, box AP and, if any, mask AP on COCO's val2017.
MICROSOFT: dict[str, tuple[str, str, float, float | None]] = {
    "reppoints_v2_swin_t_3x": ("reppointsv2_swin_tiny_patch4_window7_3x", "v1.0.9", 50.0, None),
    "mask_reppoints_v2_swin_t_3x": (
        "mask_reppointsv2_swin_tiny_patch4_window7_3x",
        "v1.0.9",
        50.4,
        43.8,
    ),
    "mask_rcnn_swin_t": ("mask_rcnn_swin_tiny_patch4_window7_1x", "v1.0.3", 43.7, 39.8),
    "mask_rcnn_swin_t_3x": ("mask_rcnn_swin_tiny_patch4_window7", "v1.0.2", 46.0, 41.6),
    "mask_rcnn_swin_s_3x": ("mask_rcnn_swin_small_patch4_window7", "v1.0.2", 48.5, 43.3),
    **{
        f"cascade_mask_rcnn_swin_{recipe}": (f"cascade_mask_rcnn_swin_{name}", folder, box, mask)
        for recipe, name, folder, box, mask in (
            ("t", "tiny_patch4_window7_1x", "v1.0.3", 48.1, 41.7),
            ("t_3x", "tiny_patch4_window7", "v1.0.2", 50.4, 43.7),
            ("s_3x", "small_patch4_window7", "v1.0.2", 51.9, 45.0),
            ("b_3x", "base_patch4_window7", "v1.0.2", 51.9, 45.0),
        )
    },
}
# Which of our recipes a config of the zoos is, by its name there.
RECIPES = {
    "mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco": "mask_rcnn_swin_t_3x",
    "mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco": "mask_rcnn_swin_s_3x",
    "dino-5scale_swin-l_8xb2-12e_coco": "dino_swin_l",
    "dino-5scale_swin-l_8xb2-36e_coco": "dino_swin_l_3x",
    "atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco": "atss_dyhead_swin_l_2x",
    "rtmdet_l_swin_b_4xb32-100e_coco": "rtmdet_swin_b",
    "mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco": "mask2former_swin_t",
    "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco": "mask2former_swin_s",
    "mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic": "mask2former_swin_t_panoptic",
    "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco-panoptic": "mask2former_swin_s_panoptic",
    "mask2former_swin-b-p4-w12-384_8xb2-lsj-50e_coco-panoptic": "mask2former_swin_b_panoptic",
    "mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic": (
        "mask2former_swin_b_22k_panoptic"
    ),
    "mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic": (
        "mask2former_swin_l_panoptic"
    ),
    "swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512": "upernet_swin_t",
    "swin-small-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512": "upernet_swin_s",
    "swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512": "upernet_swin_b",
    "swin-base-patch4-window7-in22k-pre_upernet_8xb2-160k_ade20k-512x512": "upernet_swin_b_22k",
    "swin-base-patch4-window12-in1k-384x384-pre_upernet_8xb2-160k_ade20k-512x512": (
        "upernet_swin_b_384"
    ),
    "swin-base-patch4-window12-in22k-384x384-pre_upernet_8xb2-160k_ade20k-512x512": (
        "upernet_swin_b_22k_384"
    ),
    "mask2former_swin-t_8xb2-160k_ade20k-512x512": "mask2former_swin_t_ade20k",
    "mask2former_swin-s_8xb2-160k_ade20k-512x512": "mask2former_swin_s_ade20k",
    "mask2former_swin-b-in1k-384x384-pre_8xb2-160k_ade20k-640x640": "mask2former_swin_b_ade20k",
    "mask2former_swin-b-in22k-384x384-pre_8xb2-160k_ade20k-640x640": (
        "mask2former_swin_b_22k_ade20k"
    ),
    "mask2former_swin-l-in22k-384x384-pre_8xb2-160k_ade20k-640x640": (
        "mask2former_swin_l_22k_ade20k"
    ),
    "knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512": "knet_swin_t",
    "knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-512x512": "knet_swin_l_22k",
}


class Weights(NamedTuple):
    """Published weights of a whole detector or segmentor, with results by name.

    Attributes:
        recipe: Our config that they fit, or None.
        config: A config that they fit: our recipe, or the path of the zoo's own.
    """

    name: str
    address: str
    recipe: str | None
    config: str
    dataset: str
    metrics: dict[str, float]


@lru_cache
def list_weights() -> tuple[Weights, ...]:
    """All published weights that are known, those of the zoos first."""
    found = [weights for package in ZOOS for weights in _read_zoo(package)]
    for recipe, (name, folder, box_ap, mask_ap) in MICROSOFT.items():
        metrics = {"box AP": box_ap} if mask_ap is None else {"box AP": box_ap, "mask AP": mask_ap}
        address = f"{RELEASES}/{folder}/{name}.pth"
        found.append(Weights(name, address, recipe, recipe, "COCO", metrics))
    return tuple(found)


def find_weights(name: str) -> Weights:
    """Finds published weights by their name, or that of a recipe.

    Raises:
        CheckpointError: There are none; names the nearest.
    """
    known = list_weights()
    for weights in known:
        if name in (weights.name, weights.recipe):
            return weights
    names = {n for weights in known for n in (weights.name, weights.recipe) if n}
    nearest = get_close_matches(name, sorted(names), n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    raise CheckpointError(
        f"no file and no published weights are called {name}{hint} (`swin-mm weights` lists them)"
    )


def resolve_weights(name: str) -> str:
    """The path or address of weights that are given by path, address or name."""
    path = Path(name).expanduser()  # a folder of a sharded training has no suffix
    if "://" in name or path.suffix or path.name != name or path.exists():
        return name
    return find_weights(name).address


def _read_zoo(package: str) -> list[Weights]:
    """Reads the models with a Swin backbone from the metafiles that come with a package."""
    from mmengine.fileio import load

    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return []
    root = Path(spec.submodule_search_locations[0]) / ".mim"
    found = []
    for path in sorted(root.glob("configs/*/metafile.y*ml")):
        content = load(path, file_format="yaml")
        models = content.get("Models") if isinstance(content, dict) else content
        for model in models or []:
            if re.search("swin", model["Name"]) and model.get("Weights"):
                found.append(_read_model(model, root))
    return found


def _read_model(model: dict, root: Path) -> Weights:
    name = model["Name"].removesuffix(".py")
    results = model.get("Results") or []
    results = results if isinstance(results, list) else [results]
    recipe, config = RECIPES.get(name), root / model["Config"]
    if not config.is_file():  # some entries name another folder
        config = next(root.glob(f"configs/*/{config.name}"), config)
    return Weights(
        name,
        model["Weights"],
        recipe,
        recipe or str(config),
        results[0]["Dataset"] if results else "",
        {key: value for result in results for key, value in result["Metrics"].items()},
    )
