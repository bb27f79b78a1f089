"""Which learning rate suits a pre-trained backbone: the more it knows, and the larger it is, the smaller.

From the guide to customising trainers: large transformers that saw hundreds of millions of images keep what they learnt
at a hundredth of the head's rate or less; small ones with light pre-training bear half of it; a tenth suits the rest,
ResNet and HGNetv2 among them.
"""

from __future__ import annotations

LARGE, SMALL = 200.0, 50.0  # millions of parameters: of ViT-L and more, of less than ViT-B
MANY = 100.0  # millions of images


def fitting_rate(kind: str, parameters: float, images: float) -> tuple[float, str]:
    """Return the rate of a pre-trained backbone as a share of the others', and why.

    Args:
        kind: "CNN" or "ViT".
        parameters: millions that it has.
        images: millions that it was trained on.
    """
    size = f"{parameters:.3g} million parameters trained on {images:.3g} million images"
    if kind == "ViT" and parameters >= LARGE and images >= MANY:
        return 0.01, f"{size}: a large transformer keeps what it knows"
    if kind == "ViT" and parameters < SMALL and images < MANY:
        return 0.5, f"{size}: a small transformer has much to learn still"
    return 0.1, f"{size}: between those that must keep what they know and those that have little"
