"""Which methods count as a user's own."""

from __future__ import annotations

import functools
from typing import Any

from eyas.callbacks import Callback, ClipGradNorm
from eyas.run.overrides import overrides, stock_bases


class Mixin:
    def describe(self, trainer: Any) -> dict[str, object]:
        return {}


class Before(Mixin, ClipGradNorm):
    pass


class Behind(ClipGradNorm, Mixin):
    def helper(self) -> None: ...


class Wraps(ClipGradNorm):
    witness = functools.wraps(ClipGradNorm.witness)(lambda self, trainer: {})


def test_what_a_call_would_reach_counts() -> None:
    assert overrides(Before) == {"describe": Mixin.describe}
    assert overrides(Behind) == {}, "the stock one is found first, and a helper replaces nothing"


def test_a_wrapped_stock_method_is_not_replaced() -> None:
    assert overrides(Wraps) == {}


def test_eyas_own_classes_have_none() -> None:
    assert overrides(ClipGradNorm) == {}
    assert [base.__name__ for base in stock_bases(Before)] == ["ClipGradNorm", "_Clip", "StockCallback", "Callback"]
    assert stock_bases(Mixin) == [] and overrides(Mixin) == {}
    assert overrides(type("Own", (Callback,), {"needs": Mixin.describe})) == {"needs": Mixin.describe}
