"""Runs the notebooks in order: ``python -m tkmia_utils.pipeline --profile quick``.

A profile (YAML) names the notebooks, what each needs, and the parameters that differ from those
in the notebook's own `parameters` cell. Executed copies and ``run.json`` go to
``runs/<profile>/``. What is done is not done again unless its inputs changed.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
import torch
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from tkmia_utils import pace
from tkmia_utils.estimate import estimate
from tkmia_utils.files import sweep
from tkmia_utils.inputs import data_hashes, files_hashes, renew_prose
from tkmia_utils.interruption import ending_in_time
from tkmia_utils.plan import Profile, Step, check_known, declared, load_profile, resolve
from tkmia_utils.results import (
    Workspace,
    commit,
    file_hash,
    source_hash,
    versions,
    write_json,
)


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
        Seconds for the whole notebook.
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
    end = time.monotonic() + time_limit
    at = {"number": 0, "line": ""}

    def started(cell: Any, cell_index: int) -> None:
        if cell.cell_type == "code" and cell.source.strip():
            at.update(number=at["number"] + 1, line=cell.source.strip().splitlines()[0])
            on_cell(at["number"], at["line"])

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # errors are told below
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
            # What is left of the notebook's time is each cell's limit; 0 would mean none.
            timeout_func=lambda cell: max(end - time.monotonic(), 0.01),
        )
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, PapermillExecutionError):
            why = f"{error.ename}: {error.evalue}"
        elif isinstance(error, CellTimeoutError):
            why = f"the notebook ran past its time limit of {time_limit:.0f} s\n"
            why += "  (there for hangs: if it was merely slow, say --time-limit SECONDS)"
        elif isinstance(error, DeadKernelError):
            why = "the kernel was stopped or ran out of memory"
        if running.is_file():
            os.replace(running, failed)
            why += f"\n  as far as it came: {failed}"
        cell = f"in cell In [{at['number']}]: {at['line']}" if at["number"] else "before any cell"
        raise NotebookError(f"{notebook.stem} failed {cell}\n  {why}") from error
    os.replace(running, copy)
    failed.unlink(missing_ok=True)


class Run:
    """A profile on a workspace: what is done, what is to do, and doing it.

    Parameters
    ----------
    profile : Profile
        What to run.
    root : str or Path
        Folder that holds ``notebooks/``, ``runs/`` and ``figures/``.
    settings : mapping, optional
        See :func:`resolve`, which checks everything before anything runs.
    """

    def __init__(
        self, profile: Profile, root: str | Path = ".", settings: Mapping[str, str] | None = None
    ) -> None:
        self.profile, self.root = profile, Path(root).resolve()
        self.parameters = resolve(profile, self.root, settings)
        self.lab = Workspace(self.root, profile.name, "pipeline", {})
        self.file = self.lab.runs / "run.json"
        old = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        self.records: dict[str, Any] = old.get("notebooks", {})
        self.versions = versions()
        self.keys: dict[str, str] = {}
        data = data_hashes(self.parameters, self.root)
        for step in profile.steps:
            said = [source_hash(self.root, step.notebook), self.parameters[step.notebook]]
            said += [{name: self.versions[name] for name in ("python", "torch", "numpy")}]
            said += [[self.keys[need] for need in step.needs], data[step.notebook]]
            said += [files_hashes(step.reads, self.root, name=f"{step.notebook}: reads")]
            self.keys[step.notebook] = hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def chosen(self, only: Iterable[str] = ()) -> list[Step]:
        """The steps named in `only` and all they need, in order; every step when it is empty."""
        names = {step.notebook for step in self.profile.steps}
        wanted = set(only) or names
        for name in wanted:
            check_known(name, names, "--only", f"a notebook of profile {self.profile.name}")
        for step in reversed(self.profile.steps):
            wanted |= set(step.needs) if step.notebook in wanted else set()
        return [step for step in self.profile.steps if step.notebook in wanted]

    def up_to_date(self, step: Step) -> bool:
        """Was it done with the same inputs, and is all it made still there and unchanged?"""
        record = self.records.get(step.notebook, {})
        return (
            record.get("status") == "done"
            and record["key"] == self.keys[step.notebook]
            and (self.lab.runs / f"{step.notebook}.ipynb").is_file()
            and all(
                (self.root / file).is_file() and file_hash(self.root / file) == made
                for file, made in record["made"].items()
            )
        )

    def do(
        self, step: Step, on_cell: Callable[[int, str], None], *, time_limit: float | None = None
    ) -> float:
        """Run one step, record it in ``run.json``, and return its seconds.

        `time_limit` is in seconds; default the profile's, which suits a quick machine.

        Raises
        ------
        NotebookError
            It failed; that too is recorded.
        """
        before, start = self._files(), time.monotonic()
        source = self.root / "notebooks" / f"{step.notebook}.ipynb"
        values = self.parameters[step.notebook]
        own = declared(source)
        record: dict[str, Any] = {"status": "stopped"}  # until it is known better
        try:
            execute(
                source,
                self.lab.runs / source.name,
                parameters={name: value for name, value in values.items() if value != own[name]},
                time_limit=self.profile.time_limit if time_limit is None else time_limit,
                on_cell=on_cell,
            )
            record = {"status": "done"}
        except NotebookError as error:
            record = {"status": "failed", "error": str(error)}
            raise
        finally:
            seconds = time.monotonic() - start
            made = [file for file, stat in self._files().items() if before.get(file) != stat]
            self.records[step.notebook] = {
                **record,
                "seconds": round(seconds, 1),
                "parameters": values,
                "commit": commit(self.root),
                "key": self.keys[step.notebook],
                "made": {file: file_hash(self.root / file) for file in sorted(made)},
            }
            self._write()
        return seconds

    def _files(self) -> dict[str, tuple[int, int]]:
        """Results, figures and tables with what tells that one was written anew."""
        found = {}
        for path in (*self.lab.runs.rglob("*"), *self.lab.figures.rglob("*")):
            bookkeeping = path.suffix == ".ipynb" or path.name in ("run.json", "manifest.json")
            if path.is_file() and not bookkeeping and not path.name.startswith("."):
                stat = path.stat()
                found[path.relative_to(self.root).as_posix()] = (stat.st_mtime_ns, stat.st_ino)
        return found

    def _write(self) -> None:
        cuda = torch.cuda.is_available()
        order = [step.notebook for step in self.profile.steps if step.notebook in self.records]
        write_json(
            self.file,
            {
                "profile": self.profile.name,
                "note": self.profile.note,
                "commit": commit(self.root),
                "device": torch.cuda.get_device_name(0) if cuda else "cpu",
                "cores": _cores(),
                "versions": self.versions,
                "notebooks": {name: self.records[name] for name in order},
            },
        )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def title(notebook: str | Path) -> str:
    """The first heading of a notebook, without its number."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        heading = re.search(r"^# (?:\d+\s*[·.:]\s*)?(.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and heading:
            return heading[1].strip()
    return ""


def _say(line: str, *, passing: bool = False) -> None:
    """Print a line; a passing one only in a terminal, where the next line takes its place."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width] if passing else line}", end="" if passing else "\n")
    elif not passing:
        print(line)
    sys.stdout.flush()


def _plan(run: Run, steps: list[Step]) -> int:
    """Print what the steps will cost."""
    with tempfile.TemporaryDirectory() as folder:
        source = "import matplotlib.pyplot, seaborn\nfrom tkmia_utils import widgets"
        empty = Path(folder) / "empty.ipynb"
        cell = nbformat.v4.new_code_cell(source)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), empty)
        begun = time.monotonic()
        execute(empty, Path(folder) / "done.ipynb", parameters={}, time_limit=300)
        start = time.monotonic() - begun
    parameters = {step.notebook: run.parameters[step.notebook] for step in steps}
    table, note = estimate(parameters, run.profile.name, run.root, start=start)
    shown = table.assign(**{"image-iterations": table["image-iterations"].map("{:,}".format)})
    print(shown.to_markdown(floatfmt=".1f", colalign=("left", "right", "right", "right")))
    print(f"\n{note}\nOn {_cores()} cores" + (" and a GPU." if torch.cuda.is_available() else "."))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tkmia_utils.pipeline", description=__doc__)
    add = parser.add_argument
    add("--profile", default="quick", help="a name, or a path that ends in .yaml")
    add("--only", nargs="+", default=[], help="these notebooks, and what they need", metavar="NB")
    add("--set", nargs="+", default=[], action="extend", metavar="NAME=VALUE", dest="settings")
    add("--force", action="store_true", help="run again what is up to date")
    add("--engine", choices=("local", "ray"), help="where attacks run; as --set engine=...")
    add("--address", help="of a Ray cluster; as --set address=...")
    add("--root", default=".", help="the folder that holds notebooks/")
    add("--plan", metavar="PROFILE", help="say what PROFILE will cost on this machine, and stop")
    add("--time-limit", type=float, metavar="SECONDS", help="a notebook; default the profile's")
    add("--list", action="store_true", help="say what would be run, and stop")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 0 (done), 1 (a notebook failed), 2 (bad call) or 130 (stopped)."""
    with ending_in_time():
        return _main(arguments)


def _main(arguments: list[str] | None) -> int:
    try:
        given = _parser().parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    profile = given.plan or given.profile
    try:
        for item in given.settings:
            if "=" not in item:
                raise ValueError(f"--set: expected NAME=VALUE, got {item!r}")
        settings = dict(item.split("=", 1) for item in given.settings)
        for name in ("engine", "address"):
            if getattr(given, name) is not None:
                settings[name] = getattr(given, name)
        if given.time_limit is not None and not given.time_limit > 0:
            raise ValueError(f"--time-limit: expected seconds above 0, got {given.time_limit:g}")
        run = Run(load_profile(profile), given.root, settings)
        steps = run.chosen(given.only)
        if given.plan:
            return _plan(run, steps)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    forced = set(given.only) or set(run.keys) if given.force else set()
    limit = given.time_limit
    for folder in (run.lab.cache, run.lab.runs, run.lab.figures):
        sweep(folder, deep=True)
    for number, step in enumerate(steps, start=1):
        notebook = run.root / "notebooks" / f"{step.notebook}.ipynb"
        line = f"[{number}/{len(steps)}] {step.notebook}  {title(notebook)} ·"
        if run.up_to_date(step) and step.notebook not in forced:
            _say(f"{line} up to date")
            if not given.list:
                renew_prose(run.lab.runs / notebook.name, notebook)
        elif given.list:
            _say(f"{line} to run")
        else:
            _say(f"{line} starts", passing=True)
            if limit is None:
                limit = pace.scaled(run.profile.time_limit, report=_say)
            try:
                seconds = run.do(
                    step,
                    lambda n, text, line=line: _say(f"{line} In [{n}] {text}", passing=True),
                    time_limit=limit,
                )
            except NotebookError as error:
                _say(f"{line} failed")
                print(f"error: {error}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                _say(f"{line} stopped; the next run goes on from here")
                return 130
            _say(f"{line} {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
