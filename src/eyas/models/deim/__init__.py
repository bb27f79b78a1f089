"""DEIM: networks of D-FINE and RT-DETRv2 that are trained to match more objects (spec detr 3)."""
