"""A config in the making: what those of detectors and segmentors have in common."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swin_mm.configs import read_config
from swin_mm.datasets.check import check_config
from swin_mm.datasets.check.sizes import UNTURNED
from swin_mm.engine.checkpoint_files import write_atomically
from swin_mm.init_config import recipe
from swin_mm.init_config.bands import Bands, survey_bands
from swin_mm.init_config.options import InitConfigError, Options, Written
from swin_mm.init_config.plan import Schedule
from swin_mm.init_config.text import Code, assign, comment, in_docstring


class Draft:
    """Collects the sections of a config, the files that go with it, and notes.

    `methods` are those that fit the data, the default first, `notes` what the user should know of
    the data, and `found` says in words what data set they are of.
    """

    def __init__(
        self, options: Options, methods: Sequence[str], notes: Sequence[str] = (), found: str = ""
    ) -> None:
        if options.out.suffix != ".py":
            raise InitConfigError(f"--out must end in .py, got {options.out}")
        options.check_new(options.out)
        self.options, self.notes, self.found = options, list(notes), found
        self.is_full = options.preset == "full"
        self.recipe, self.base, self.title = recipe.choose_recipe(options, methods)
        self.bands: Bands | None = None
        self.load: dict[str, Any] = dict(type="LoadImageFromFile")
        self.files: dict[Path, str] = {}
        self._sections: list[str] = []

    def add(self, text: str, **settings: Any) -> None:
        """Adds settings below a comment."""
        lines = (assign(name, value) for name, value in settings.items())
        self._sections.append(comment(text) + "\n".join(lines))

    def train_and_val(self, parts: Sequence[Any]) -> tuple[Any, Any]:
        """Returns both parts; of one alone validation data is split off."""
        if len(parts) == 2:
            return parts[0], parts[1]
        train, val = parts[0].split(self.options)
        count = len(val.image_files())
        self.notes.append(
            f"{count} image{'s were' if count > 1 else ' was'} split off for validation, by the "
            "hash of their names, so always the same; split by hand if images belong together "
            "(frames of a film, tiles of a map)"
        )
        return train, val

    def add_data(
        self, text: str, metainfo: dict, classes: tuple[str, ...], folders: list, **paths: Any
    ) -> None:
        """Adds classes and paths; the folder that `folders` share is `data_root`."""
        root = os.path.commonpath([str(folder) for folder in folders if folder])
        root = f"{root}/" if root.count("/") >= 2 else ""  # "/home" says little
        self.add(
            text,
            classes=classes,
            num_classes=Code("len(classes)"),
            metainfo=metainfo,
            data_root=root,
            **{name: f"{path}/".removeprefix(root).rstrip("/") for name, path in paths.items()},
        )

    def add_images(self, parts: Sequence[Any]) -> None:
        """Looks at bands and orientation of the images, which the loading step depends on."""
        self.bands = survey_bands(parts[0].image_files(), self.options.bands)
        if self.bands is not None:
            text = "Bands of the files that are used. Pictures show the first three of them, or "
            text += "those that picture_bands of the loader names."
            self.add(text, bands=self.bands.chosen)
            self.load = dict(type="swin_mm.LoadMultiBandImage", bands=Code("bands"))
        elif notes := [note for part in parts for note in part.color_notes()]:
            self.notes.append(notes[0])
            self.load["color_type"] = UNTURNED

    def add_loaders(
        self, batch: int, dataset: Callable[[str], dict[str, Any]], **more: Any
    ) -> None:
        """Adds loaders of the data sets of `train` and `val`, and further settings."""
        common = dict(metainfo=Code("metainfo"), data_root=Code("data_root"))
        train, val = (
            {**dataset(split), **common, "pipeline": Code(pipeline)}
            for split, pipeline in (("train", "train_pipeline"), ("val", "test_pipeline"))
        )
        self.add(
            "Images, or crops of images, a step on one GPU.",
            batch_size=batch,
            train_dataloader=dict(batch_size=Code("batch_size"), dataset=train),
            val_dataloader=dict(batch_size=1, dataset=val),
            test_dataloader=Code("val_dataloader"),
            **more,
        )

    def add_model(self, text: str, settings: dict[str, Any], classes: int) -> None:
        """Adds what the model changes in the recipe's: first weights, bands, heads."""
        backbone: dict[str, Any] = {}
        if self.options.weights:
            place, start = recipe.describe_start(self.options.weights, self.base.model, classes)
            self.notes.append(start)
            self.add(f"{start[0].upper()}{start[1:]}. Without network: a file.", load_from=place)
            backbone["init_cfg"] = None
        elif self.is_full:
            self.add(
                "Published weights, fetched when training starts. Without network: a file of them, "
                "or None for init_cfg to start from scratch (which takes ten times as long).",
                pretrained=self.base.model.backbone.init_cfg.checkpoint,
            )
            backbone["init_cfg"] = dict(checkpoint=Code("pretrained"))
        own = dict(backbone=backbone) if backbone else {}
        if bands := self.bands:
            text += f" Mean and deviation of each band, over {bands.images} training images."
            units = dict(mean=bands.mean, std=bands.std, bgr_to_rgb=False)
            backbone["in_channels"] = Code("len(bands)")
            own = dict(data_preprocessor=units, backbone=backbone)
        self.add(text.strip(), model=recipe.merge(own, settings))

    def add_schedule(self, plan: Schedule, unit: str, decay: str, **checkpoint: Any) -> None:
        """Adds the schedule, the rate and the hooks.

        `unit` is what the recipe counts, `epochs` or `iters`, `decay` further arguments of its
        second scheduler, and `checkpoint` settings of the hook that saves.
        """
        length = f"{plan.steps} steps"
        if unit == "epochs":
            length = f"{plan.epochs} epochs of {length}"
        schedulers = [f"end={plan.warmup}", f"end=max_{unit}{decay}"]
        limit = {f"max_{unit}": plan.epochs if unit == "epochs" else plan.steps}
        self.add(
            f"Schedule: {plan.why}, so {length}. Warm-up: at most a tenth of all steps. Validated "
            "10 times.",
            **limit,
            val_interval=plan.val_interval,
            train_cfg={name: Code(name) for name in (*limit, "val_interval")},
            param_scheduler=[
                Code(f"dict(_base_.param_scheduler[{index}], {arguments})")
                for index, arguments in enumerate(schedulers)
            ],
        )
        rate, batch = self.base.optim_wrapper.optimizer.lr, self.base.auto_scale_lr.base_batch_size
        text = f"The recipe's rate is for {batch} images a step; several GPUs: --auto-scale-lr."
        wrapper: dict[str, Any] = dict(optimizer=dict(lr=Code(f"{rate} * batch_size / {batch}")))
        if not self.is_full:
            text = "The rate of Adam goes with the root of the batch (arxiv.org/abs/2205.10287)."
            lr = Code(f"{rate} * (batch_size / {batch}) ** 0.5")
            wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=None)
        hooks: dict[str, Any] = dict(
            logger=dict(interval=min(50, max(1, plan.steps))),
            checkpoint=dict(interval=Code("val_interval"), **checkpoint, rule="greater"),
        )
        if self.bands is not None and unit == "epochs":
            hooks["visualization"] = dict(type="swin_mm.DetVisualizationHook")
        scale = dict(base_batch_size=Code("batch_size"))
        self.add(text, optim_wrapper=wrapper, auto_scale_lr=scale, default_hooks=hooks)

    def write(self, amount: str, data: str, model: str, checkpoint: str) -> Written:
        """Writes all files; restores what was there if the config or its data turn out wrong.

        `amount` is of the data, for the first line of the config, `data` and `model` (with the
        schedule) are in words, and `checkpoint` is what training leaves at its end.
        """
        out = self.options.out
        head = (
            f'"""{self.title}, own data: {amount}.\n\nWritten by `swin-mm init-config`; change it '
            "as you like. measured: not yet trained\n\nCommand: `swin-mm train "
            f'{in_docstring(out.name)}`\n"""\n\n'
            "# mmengine reads the bases before any import, so this finds them from any folder.\n"
            f'_base_ = __import__("swin_mm").base_config("{self.recipe}.py")'
        )
        self.options.check_new(*self.files)
        files = {**self.files, out: "\n\n".join([head, *self._sections]) + "\n"}
        before = {path: path.read_bytes() if path.exists() else None for path in files}
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            for path, content in files.items():
                write_atomically(path, content.encode())
            summary = check_config(read_config(out), log=False)  # they are notes
        except BaseException:
            for path, old in before.items():
                path.unlink(missing_ok=True)
                if old is not None:
                    write_atomically(path, old)
            raise
        for split, name in (("train", "training"), ("val", "validation")):
            found = summary.splits[split]
            absent = [repr(label) for label, count in found.per_class.items() if not count]
            if absent and found.instances is not None:  # of label maps the check warns itself
                self.notes.append(f"no {name} object of class {', '.join(absent)}")
        self.notes += summary.warnings()
        last, model = Path("work_dirs", out.stem, checkpoint), f"{self.title}, {model}"
        return Written(out, list(files), data, model, self.notes, last, self.found)
