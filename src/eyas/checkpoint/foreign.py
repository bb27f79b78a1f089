"""The incumbent's weights, read without running anything (spec core H).

Its ``.pt`` files are archives of ``torch.save`` that hold a whole network as Python objects. `read_weights` follows the
description as data (see `eyas.checkpoint.pickled`), takes tensors out of the tree of modules, and returns what Eyas'
own checkpoints hold. Everything in the file that is neither a tensor nor a plain value stays behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eyas.checkpoint.archive import Archive
from eyas.checkpoint.errors import CheckpointError, refusals_of
from eyas.checkpoint.pickled import Stub, TensorRef, read_pickle
from eyas.checkpoint.plain import DEPTH, plain_values
from eyas.checkpoint.tensors import Tensors
from eyas.log import LOGGER
from eyas.types import CLASSES

HEADS = ("Detect", "RTDETRDecoder")  # the classes of the last layer of the networks that can be rebuilt
MODULES = 20_000  # the largest network of the family has some 1,500
TENSORS = 100_000  # of one network
REMEMBERED = {"imgsz": int, "data": str, "single_cls": bool}  # options that serve as defaults later


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a detector's weights from a file of the incumbent.

    Returns:
        A checkpoint as Eyas writes them, see `weights_of`.

    Raises:
        CheckpointError: says what the file is instead, or what is wrong with it.
    """
    with refusals_of(Path(path)), Archive(Path(path)) as archive:
        return weights_of(read_pickle(archive.description()), archive)


def weights_of(content: Any, archive: Archive) -> dict[str, Any]:
    """Return the detector that an archive of the incumbent describes.

    Returns:
        ``model`` (state dict, float32), ``yaml`` (table of layers), ``nc``, ``names`` {index: name}, ``train_args``
        (input size and data of its training, if known), ``eyas`` (where it came from).

    Raises:
        CheckpointError: there is none, or not a whole one.
    """
    network = find_network(content)
    tensors = Tensors(archive, shared=1)  # each gets memory of its own
    state = {key: own_copy(tensors.make(ref)) for key, ref in network_tensors(network)}
    licence = told_licence(archive.path, content)
    return describe(content, network, state) | ({"licence": licence} if licence else {})


def own_copy(tensor: Tensor) -> Tensor:
    """Return a tensor of its own memory, floating ones in float32."""
    if tensor.is_complex():
        raise CheckpointError(f"it holds numbers of type {tensor.dtype}, which no weights have")
    tensor = tensor.detach()
    return tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()


# -- the network in it -------------------------------------------------------------------------------------------------
def holds_network(content: Any) -> bool:
    """Whether a file describes a network as objects, as the incumbent's do."""
    return isinstance(content, dict) and any(isinstance(content.get(name), Stub) for name in ("model", "ema"))


def find_network(content: Any) -> Stub:
    """Return the detector of a checkpoint: the averaged one if there is one.

    Raises:
        CheckpointError: there is none, or it does something else than detect.
    """
    if not isinstance(content, dict) or not {"ema", "model"} & set(content):
        raise CheckpointError("it holds no 'model' and no 'ema', as checkpoints of the incumbent do")
    network = content.get("ema") if content.get("ema") is not None else content.get("model")
    if not isinstance(network, Stub):
        raise CheckpointError("it holds tensors without the network they belong to; name a model and use pretrained=")
    layers = list(children(next((m for name, m in children(network) if name == "model"), None)))
    head = layers[-1][1].cls.name if layers else "nothing"
    if head in HEADS:
        return network
    task = network.attributes.get("task")
    if isinstance(task, str) and task != "detect":
        raise CheckpointError(f"it is for the task {task[:40]!a}, and Eyas detects")
    raise CheckpointError(
        f"its network {network.cls} ends in {head[:40]}, not in a detection head ({' or '.join(HEADS)})"
    )


def children(module: Any) -> Iterator[tuple[str, Stub]]:
    """Yield the modules directly inside a module, by name."""
    inner = module.attributes.get("_modules") if isinstance(module, Stub) else None
    for name, child in inner.items() if isinstance(inner, dict) else ():
        if isinstance(child, Stub) and isinstance(name, str):
            yield name, child


def network_tensors(network: Stub) -> Iterator[tuple[str, TensorRef]]:
    """Yield keys and tensors in the order of ``state_dict()``.

    Raises:
        CheckpointError: the modules nest, or their tensors repeat, without end.
    """
    visited, found = itertools.count(), itertools.count(1)

    def walk(module: Stub, prefix: str, depth: int) -> Iterator[tuple[str, TensorRef]]:
        if depth > DEPTH or next(visited) > MODULES:
            raise CheckpointError("the modules in it nest without end")
        for entry in own_tensors(module, prefix):
            if next(found) > TENSORS:
                raise CheckpointError("the tensors in it repeat without end")
            yield entry
        for name, child in children(module):
            yield from walk(child, f"{prefix}{name}.", depth + 1)

    return walk(network, "", 0)


def own_tensors(module: Stub, prefix: str) -> Iterator[tuple[str, TensorRef]]:
    """Yield a module's own parameters, then its buffers that belong to the state."""
    unsaved = module.attributes.get("_non_persistent_buffers_set")
    unsaved = unsaved if isinstance(unsaved, list) else []
    for kind in ("_parameters", "_buffers"):
        found = module.attributes.get(kind)
        for name, value in found.items() if isinstance(found, dict) else ():
            if isinstance(value, TensorRef) and not (kind == "_buffers" and name in unsaved):
                yield f"{prefix}{name}", value


# -- the description ---------------------------------------------------------------------------------------------------
def describe(content: dict[Any, Any], network: Stub, state: dict[str, Tensor]) -> dict[str, Any]:
    """Return the checkpoint; plain values and tensors only."""
    attributes = network.attributes
    table = plain_values(attributes.get("yaml"))
    if not isinstance(table, dict):
        raise CheckpointError("its table of layers is missing")
    if not any(".bn." in key for key in state):
        raise CheckpointError("its normalisation was folded into its convolutions; use the file from before that")
    names = class_names(plain_values(attributes.get("names")))
    nc = attributes.get("nc", table.get("nc"))
    if type(nc) is not int or not 1 <= nc <= CLASSES:
        raise CheckpointError(f"its number of classes is none from 1 to {CLASSES:,}")
    if names and (len(names) != nc or sorted(names) != list(range(nc))):
        raise CheckpointError(f"it says to have {nc} classes and names {len(names)}")
    version = content.get("version")
    version = version if isinstance(version, str) else ""  # writing out nested lists could take for ever
    return {
        "eyas": {"format": 0, "version": "", "read_from": f"ultralytics {version}" if version else "ultralytics"},
        "model": state,
        "yaml": table | {"nc": nc},
        "nc": nc,
        "names": names or {i: str(i) for i in range(nc)},
        "train_args": remembered(content.get("train_args"), attributes.get("args")),
        "train_metrics": numbers(content.get("train_metrics")),
    }


def class_names(names: Any) -> dict[int, str]:
    """Return names by index, from a list or a mapping; {} when there are none."""
    try:
        pairs = names.items() if isinstance(names, dict) else enumerate(names or [])
        return {int(i): str(name) for i, name in pairs}
    except (TypeError, ValueError, OverflowError):
        raise CheckpointError("its class names are not numbered") from None


def remembered(*sources: Any) -> dict[str, Any]:
    """Return options of its training that serve as defaults later, from the first source that has any."""
    for source in sources:
        options = source.attributes if isinstance(source, Stub) else source
        if isinstance(options, dict):
            return {name: options[name] for name, kind in REMEMBERED.items() if type(options.get(name)) is kind}
    return {}


def numbers(values: Any) -> dict[str, float]:
    """Return the entries that are numbers; an integer beyond 64 bits is no measurement, and may not fit a float."""
    items = values.items() if isinstance(values, dict) else ()
    small = {key: value for key, value in items if type(value) is not int or value.bit_length() <= 63}
    return {key: float(value) for key, value in small.items() if type(key) is str and type(value) in (int, float)}


def told_licence(path: Path, content: dict[Any, Any]) -> str:
    """Log and return what the file says about its licence: weights keep their publisher's terms wherever they go."""
    licence = content.get("license")
    if not isinstance(licence, str) or not licence:
        return ""
    LOGGER.info("%s: its publisher states the licence %s; its terms apply to these weights", path.name, licence)
    return licence
