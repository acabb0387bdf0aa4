"""What follows from the profile of a step, in plain words: a table of rules to read and add to.

A rule looks at one measure and speaks where it is at or above a bound. Measures are shares of the
step's time, each named as its part; `gpu idle`, the share of the time in which the GPU has nothing
to do; and `launches` and `waits`, numbers a step. One that is not measured says nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

from swin_mm.benchmark.profile_parts import BACKWARD, DATA, OPTIMIZER, OTHER, PREPROCESS, TRANSFER

NOT_PARTS = ("gpu idle", "waits", "launches")


class Rule(NamedTuple):
    """When something is said, and what.

    Attributes:
        measure: What it looks at.
        bound: From which value on it speaks.
        advice: `{value}` is the measure.
    """

    measure: str
    bound: float
    advice: str


RULES = (
    Rule(
        DATA,
        0.10,
        "The step waits for data {value:.0%} of its time: raise train_dataloader.num_workers (up "
        "to the cores of the machine), keep persistent_workers=True, and put the data on a local "
        "disk.",
    ),
    Rule(
        TRANSFER,
        0.05,
        "Copying the batch to the GPU takes {value:.0%}: set train_dataloader.pin_memory=True.",
    ),
    Rule(
        PREPROCESS,
        0.10,
        "Preprocessing takes {value:.0%}: masks and padding are made on the CPU for each image; "
        "see docs/speed.md for recipes that do it on the GPU.",
    ),
    Rule(
        OPTIMIZER,
        0.10,
        "The optimizer takes {value:.0%}: set optim_wrapper.optimizer.fused=True and "
        "optim_wrapper.constructor=swin_mm.MergedOptimWrapperConstructor.",
    ),
    Rule(
        OTHER,
        0.10,
        "{value:.0%} are in no part: the model's own code between its parts; the timeline shows "
        "what it is.",
    ),
    Rule(
        "gpu idle",
        0.10,
        "The GPU has nothing to do {value:.0%} of the time: it waits for Python. Larger batches "
        "(swin-mm find-batch-size) give it more work for each launch.",
    ),
    Rule(
        "waits",
        60,
        "The step waits for the GPU {value:.0f} times (item(), nonzero() and boolean indexing do "
        "it): take swin_mm's heads (docs/speed.md); the timeline shows who calls "
        "cudaStreamSynchronize.",
    ),
    Rule(
        "launches",
        4000,
        "{value:.0f} kernels a step: most are small; larger batches, fused layers or compiled ones "
        "make them fewer.",
    ),
)
# What to do about the part that takes most, where something can be said of it.
LARGEST = {
    "backbone": "`swin-mm benchmark --part backbone` compares ways to run it, and "
    "model.backbone.with_cp must be off unless memory asks for it",
    BACKWARD: "it is mostly that of the parts above, in proportion",
    DATA: "the model is not what limits training",
}


def advise(measures: Mapping[str, float | None]) -> list[str]:
    """Says what follows.

    Args:
        measures: By name, `None` where one is not measured. All but `NOT_PARTS` are shares of
            the step.

    Returns:
        Sentences, that of the largest part first.
    """
    parts = {name: value for name, value in measures.items() if name not in NOT_PARTS}
    largest = max(parts, key=parts.__getitem__)
    hint = f": {LARGEST[largest]}" if largest in LARGEST else ""
    lines = [f"{largest} takes the most time, {parts[largest]:.0%}{hint}."]
    for rule in RULES:
        value = measures.get(rule.measure)
        if value is not None and value >= rule.bound:
            lines.append(rule.advice.format(value=value))
    return lines
