"""The owner's side: a monitor whose false alarms are rare by theorem, and what it is made of."""

from tkmia_utils.monitor.monitor import Monitor, fit
from tkmia_utils.monitor.watches import WATCHES, Watch

__all__ = ["WATCHES", "Monitor", "Watch", "fit"]
