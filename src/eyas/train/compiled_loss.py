"""`torch.compile` of a loss: of those of its methods that map tensors to tensors, each tried on made-up images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from eyas import dist
from eyas.nn.compilable import Compilable, compilables
from eyas.train.trials import FAILURES, beginning, difference, outcome, tensors

# Largest difference of results and gradients, relative to their norm, of the same predictions: a sum in another order
# differs by 1e-6, another choice between two anchors that are as good by 1e-2.
TOLERANCE = 0.05
ELSEWHERE = "another process could not compile it."


class CompiledMethod:
    """A method in both forms. While it is tried, callers get what the written one returns.

    Attributes:
        refused: why the compiled form is not used; empty if nothing is known against it.
        tried: whether anybody has called it.
        settled: whether what it is given now must not be compiled anew: only the number of objects is another.
    """

    def __init__(self, owner: Compilable, name: str, settings: Mapping[str, Any]) -> None:
        self.owner, self.name = owner, name
        self.written = getattr(owner, name)
        self.compiled = torch.compile(self.written, dynamic=False, **settings)
        self.refused = ""
        self.tried = self.settled = False

    def __call__(self, *given: Any) -> Any:
        self.tried = True
        self.refused = self.refused or self.trial(given)
        return self.written(*given)

    def trial(self, given: tuple[Any, ...]) -> str:
        """Run both forms, forward and backward; return what is wrong, empty if nothing is."""
        try:
            with torch.compiler.set_stance("fail_on_recompile" if self.settled else "default"):
                made = outcome(self.of_any_size, given)
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            return f"torch.compile failed ({beginning(error)})."
        with torch.compiler.set_stance("force_eager"):
            apart = difference(made, outcome(self.written, given))
        return "" if apart <= TOLERANCE else f"compiled, its results differ by {apart:.2g} of their size."

    def of_any_size(self, *given: Any) -> Any:
        """Run the compiled form, which is compiled for any size that it does not itself make a constant."""
        if not self.settled:
            for tensor in tensors(given):
                torch._dynamo.maybe_mark_dynamic(tensor, list(range(tensor.ndim)))
        return self.compiled(*given)


class CompiledLoss:
    """The methods of a loss that `torch.compile` has taken, or why it has not.

    Args:
        criterion: a loss, whose parts run as they are written where they do not say what of them may be compiled; None
            of a network that is no `Detector`.
        settings: of `torch.compile`.

    Attributes:
        refused: why a part of it runs as it is written; empty if none does.
        taken: the methods that run compiled.
    """

    def __init__(self, criterion: object, settings: Mapping[str, Any]) -> None:
        parts = () if criterion is None else compilables(criterion)
        self.owners = [part for part in parts if isinstance(part, Compilable) and part.own_methods()]
        self.methods = [CompiledMethod(owner, name, settings) for owner in self.owners for name in owner.own_methods()]
        self.taken: list[CompiledMethod] = []
        self.refused = "the network is no Detector." if criterion is None else ""
        if silent := dict.fromkeys(type(part).__name__ for part in parts if part not in self.owners):
            self.refused = f"{', '.join(silent)} does not say what of it can be compiled (compiled_methods)."

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Try every method that is called within; then let those run compiled that are the same in both forms."""
        self.release()
        for method in self.methods:
            method.owner.take(method.name, method)
        failed = ""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            failed = f"it cannot judge made-up images ({beginning(error)})."
        finally:
            self.release()
        for method in self.methods:
            method.refused = method.refused or failed
            if dist.any_rank(bool(method.refused)):
                self.refused = f"{type(method.owner).__name__}.{method.name}: {method.refused or ELSEWHERE}"
            elif method.tried:
                method.owner.take(method.name, method.compiled)
                self.taken.append(method)
            else:
                self.refused = f"nobody calls {type(method.owner).__name__}.{method.name}."

    def settle(self, settled: bool) -> None:
        """Say whether what is called next must not be compiled anew."""
        for method in self.methods:
            method.settled = settled

    def release(self) -> None:
        """Give the loss back as it is written."""
        for owner in self.owners:
            owner.give_back()
        self.taken = []
