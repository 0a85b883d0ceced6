"""The attack's loop: slots on the device, images in, results out, in any arithmetic."""

from tkmia_utils.engine.images import ImageSource
from tkmia_utils.engine.loop import attack
from tkmia_utils.engine.result import AttackResult
from tkmia_utils.engine.runtime import Runtime

__all__ = ["AttackResult", "ImageSource", "Runtime", "attack"]
