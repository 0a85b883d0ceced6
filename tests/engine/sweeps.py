"""An attack whose settings a test sweeps over, those of the runtime among the others."""

import tkmia_utils
from tkmia_utils.engine.runtime import Runtime, split_settings


def attack(*data: object, **call: object) -> tkmia_utils.AttackResult:
    """``attack(slots=3, lr=0.1)`` for ``attack(runtime=Runtime(slots=3), lr=0.1)``."""
    runtime, others = split_settings(call)
    return tkmia_utils.attack(*data, runtime=Runtime(**runtime), **others)


class Shared:
    """A value that is the same in every copy of what holds it."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict) -> "Shared":
        return self
