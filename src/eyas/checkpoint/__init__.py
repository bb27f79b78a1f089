"""What a checkpoint file holds, how it is written, and the safe reader of files from elsewhere."""

from eyas.checkpoint.file import (
    FORMAT,
    CheckpointError,
    SaveError,
    check_plain,
    class_name,
    load_checkpoint,
    save_checkpoint,
    serialise,
)

__all__ = [
    "FORMAT",
    "CheckpointError",
    "SaveError",
    "check_plain",
    "class_name",
    "load_checkpoint",
    "save_checkpoint",
    "serialise",
]
