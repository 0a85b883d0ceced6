"""Run one notebook without a browser, under a time limit, and keep the executed copy."""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError


class NotebookError(RuntimeError):
    """A notebook failed: which, where, why, and where its partial copy is."""


class _ThisPython(AsyncKernelManager):
    """Kernels of the interpreter that runs the pipeline, whatever kernelspecs the user has."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # The kernel's own log is noise here: what a cell raises comes with the notebook.
        return KernelSpec(**get_kernel_dict(["--IPKernelApp.log_level=50"]))


def execute(
    notebook: str | Path,
    copy: str | Path,
    *,
    parameters: Mapping[str, Any],
    time_limit: float,
    on_cell: Callable[[int, str], None] = lambda number, line: None,
) -> None:
    """Run one notebook in its own folder and leave the executed copy at `copy`.

    Parameters
    ----------
    notebook, copy : str or Path
        Input and output, ``.ipynb``. While it runs the copy is ``<name>.running.ipynb``, after a
        failure ``<name>.failed.ipynb``.
    parameters : mapping
        Injected after the cell tagged ``parameters``.
    time_limit : float
        Seconds for the whole notebook, from its first cell; as long again for its kernel to start.
    on_cell : callable
        Called with number and first line of each code cell that starts; the number is the
        ``In [number]`` of the copy.

    Raises
    ------
    NotebookError
        A cell raised, time ran out, or the kernel died.
    """
    notebook, copy = Path(notebook).resolve(), Path(copy).resolve()
    running, failed = (copy.with_suffix(f".{state}.ipynb") for state in ("running", "failed"))
    at: dict[str, Any] = {"number": 0, "line": ""}
    ends: list[float] = []

    def started(cell: Any, cell_index: int) -> None:
        if cell.cell_type == "code" and cell.source.strip():
            at.update(number=at["number"] + 1, line=cell.source.strip().splitlines()[0])
            on_cell(at["number"], at["line"])

    def left(_: Any) -> float:
        """What is left of the notebook's time, which begins with its first cell; 0 means none."""
        ends.append(ends[0] if ends else time.monotonic() + time_limit)
        return max(ends[0] - time.monotonic(), 0.01)

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # errors are reported below
    try:
        papermill.execute_notebook(
            notebook,
            running,
            dict(parameters),
            kernel_name="python3",
            language="python",
            progress_bar=False,
            cwd=notebook.parent,
            kernel_manager_class=_ThisPython,
            on_cell_start=started,
            start_timeout=math.ceil(time_limit),
            timeout_func=left,
        )
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, PapermillExecutionError):
            why = f"{error.ename}: {error.evalue}"
        elif isinstance(error, CellTimeoutError):
            why = f"the notebook ran past its time limit of {time_limit:.0f} s\n"
            why += "  It may hang. If it is only slow: --time-limit SECONDS, or time_limit in the\n"
            why += "  profile; the next call goes on from what is saved."
        elif isinstance(error, DeadKernelError):
            why = "the kernel was stopped or ran out of memory"
        if running.is_file():
            os.replace(running, failed)
            why += f"\n  as far as it came: {failed}"
        cell = f"in cell In [{at['number']}]: {at['line']}" if at["number"] else "before any cell"
        raise NotebookError(f"{notebook.stem} failed {cell}\n  {why}") from error
    os.replace(running, copy)
    failed.unlink(missing_ok=True)
