"""How RT-DETR is trained when nothing else is said (spec detr 1.9)."""

from eyas.recipes.base import OptimizerChoice, Recipe

# 1e-4 is the family's rate for weights that are given; random ones, backbone included, need more to get going.
ADAMW = OptimizerChoice("AdamW", lr0=4e-4, momentum=0.9)

RTDETR = Recipe(
    short=ADAMW,
    long=ADAMW,
    fine_tune=0.25,
    nbs=16,
    options={
        "weight_decay": 1e-4,
        "clip_grad_norm": 0.1,
        "box": 2.0,  # GIoU
        "cls": 1.0,  # varifocal
        "dfl": 5.0,  # L1
        "multi_scale": 0.25,  # 480 to 800 px for 640
    },
)
