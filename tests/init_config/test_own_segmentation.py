"""Configs for own segmentation data: they load, build, train a step, and say what they should."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from own_data import build_loader, train_a_step, write_maps

from swin_mm.init_config import InitConfigError, Options, init_segmentation


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_config(*splits, preset="small", classes=None, **options):
        folders = [[str(tmp_path / kind / s) for s in splits or ("",)] for kind in ("lab", "img")]
        out = tmp_path / "configs" / "own.py"
        written = init_segmentation(*folders, classes, Options(out=out, preset=preset, **options))
        monkeypatch.chdir("/")
        cfg = Config.fromfile(out)
        init_default_scope(cfg.default_scope)
        return written, cfg

    return write_config


def first_batch(settings):
    return next(iter(build_loader(settings)))


def test_small_preset_learns(tmp_path, write):
    write_maps(tmp_path, images=10)
    written, cfg = write(classes=["sky", "Größe, 'odd'", "road"])
    assert cfg.classes == ("sky", "Größe, 'odd'", "road")
    assert {path.name for path in written.files} == {"own.py", "own_train.txt", "own_val.txt"}
    assert len((tmp_path / "configs" / "own_val.txt").read_text().split()) == 2
    _, model, data = train_a_step(cfg)
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == 3
    assert cfg.train_pipeline[-1].type == "swin_mm.PackSegInputs"
    assert cfg.model.data_preprocessor.type == "swin_mm.SegDataPreProcessor"
    assert cfg.model.decode_head.type == "swin_mm.UPerHead"
    assert cfg.optim_wrapper.type == "swin_mm.OptimWrapper" and cfg.optim_wrapper.optimizer.fused
    assert data["inputs"].shape == (2, 3, 64, 64)
    found = first_batch(cfg.val_dataloader)["data_samples"][0].gt_sem_seg.data
    assert found.shape == (1, 64, 96) and set(found.unique().tolist()) == {0, 1, 2}


def test_unlabelled_zero(tmp_path, write):
    write_maps(tmp_path, images=6, values=(0, 1, 2))
    written, cfg = write(classes=["a", "b"])
    assert cfg.train_dataloader.dataset.reduce_zero_label is True
    assert "0 is unlabelled and ignored" in written.notes[0]
    labels = first_batch(cfg.val_dataloader)["data_samples"][0].gt_sem_seg.data
    assert set(labels.unique().tolist()) == {0, 1, 255}


def test_four_bands_of_sixteen_bits(tmp_path, write):
    write_maps(tmp_path, images=6, suffix=".tif", bands=4)
    _, cfg = write(all_flips=True)
    _, model, data = train_a_step(cfg)
    assert model.backbone.patch_embed.proj.weight.shape[1] == data["inputs"].shape[1] == 4
    assert abs(data["inputs"].mean()) < 0.5 and 0.5 < data["inputs"].std() < 1.5


def test_recipe_with_folders_for_validation(tmp_path, write):
    write_maps(tmp_path, images=6, split="train")
    write_maps(tmp_path, images=2, split="val")
    written, cfg = write("train", "val", preset="full", batch=4)
    assert [path.name for path in written.files] == ["own.py"]
    assert cfg.train_dataloader.dataset.type == "BaseSegDataset"
    assert "ann_file" not in cfg.train_dataloader.dataset
    assert cfg.train_cfg.max_iters == 4000
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(6e-5 * 4 / 16)
    assert cfg.image_scale == (192, 128) and cfg.crop_size == (128, 128)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert model.decode_head.num_classes == 3
    batch = first_batch(cfg.train_dataloader)
    assert len(batch["inputs"]) == 4 and max(batch["inputs"][0].shape) == 128
    views = first_batch(
        dict(
            cfg.val_dataloader, dataset=dict(cfg.val_dataloader.dataset, pipeline=cfg.tta_pipeline)
        )
    )
    assert len(views["inputs"]) == 6


def test_values_out_of_range_are_refused(tmp_path, write):
    write_maps(tmp_path, images=3, values=(0, 1, 9))
    with pytest.raises(InitConfigError, match="hold the values 9, but 2 classes are 0 to 1"):
        write(classes=["a", "b"])
    assert not (tmp_path / "configs").exists()


def test_folders_go_together(tmp_path, write):
    write_maps(tmp_path, images=3)
    folder = str(tmp_path / "lab")
    with pytest.raises(InitConfigError, match="go together: got 1 folders and 2"):
        init_segmentation([folder, folder], [str(tmp_path / "img")], None, Options())
