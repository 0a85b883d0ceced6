"""Runs the notebooks in order: ``python -m tkmia_utils.pipeline --profile quick``.

A profile (YAML) names the notebooks, what each needs, and the parameters that differ from those
in the notebook's own `parameters` cell. Executed copies, figures, tables and ``run.json`` go to
``runs/<profile>/``; the record ``figures/<profile>/`` is read, and written only by ``--update``.
What is done is not done again unless its inputs changed.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import nbformat
import torch

from tkmia_utils.files import sweep_all
from tkmia_utils.hashing import file_hash
from tkmia_utils.interruption import ending_in_time
from tkmia_utils.pipeline import compare_report, pace, record, scale
from tkmia_utils.pipeline.cost import estimate
from tkmia_utils.pipeline.execution import NotebookError, execute
from tkmia_utils.pipeline.inputs import data_hashes, files_hashes, renew_prose
from tkmia_utils.pipeline.profile import (
    Profile,
    Step,
    check_known,
    load_profile,
    resolve,
    title,
)
from tkmia_utils.workspace import (
    MANIFEST,
    Workspace,
    commit,
    declared,
    source_hash,
    versions,
    write_json,
)

REPORTED = ("10_all.md", "08_table_S1.md", "08_table_S2.md")
"""Tables that answer a run on one's own photos."""


class Run:
    """A profile on a workspace: which notebooks are up to date, and running those that are not.

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
            hash_inputs = [source_hash(self.root, step.notebook), self.parameters[step.notebook]]
            hash_inputs += [{name: self.versions[name] for name in ("python", "torch", "numpy")}]
            hash_inputs += [[self.keys[need] for need in step.needs], data[step.notebook]]
            hash_inputs += [files_hashes(step.reads, self.root, name=f"{step.notebook}: reads")]
            self.keys[step.notebook] = hashlib.sha256(json.dumps(hash_inputs).encode()).hexdigest()

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
        known = self.records.get(step.notebook, {})
        return (
            known.get("status") == "done"
            and known["key"] == self.keys[step.notebook]
            and (self.lab.runs / f"{step.notebook}.ipynb").is_file()
            and all(
                # figures were once written elsewhere
                self.lab.runs in (self.root / file).parents
                and (self.root / file).is_file()
                and file_hash(self.root / file) == made
                for file, made in known["made"].items()
            )
        )

    def update(self, steps: Iterable[Step]) -> int:
        """Make the run the record; how many files changed. A notebook that is due is refused.

        Of a profile that names what its record holds, the `steps` alone are asked for it.
        """
        steps, kept = tuple(steps), self.profile.record
        due = [step.notebook for step in steps if not self.up_to_date(step)]
        if due:
            raise ValueError(f"--update: {', '.join(due)} is not up to date; the record stays")
        owners = [self.records[step.notebook] for step in steps] if kept else self.records.values()
        made = self._drawn(file for own in owners for file in own["made"])
        if kept:
            made = [file for file in made if any(fnmatch(file, pattern) for pattern in kept)]
        return record.replace(self.lab.figures, self.lab.record, made=made)

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
        outcome: dict[str, Any] = {"status": "stopped"}  # until it is known better
        try:
            execute(
                source,
                self.lab.runs / source.name,
                parameters={name: value for name, value in values.items() if value != own[name]},
                time_limit=self.profile.time_limit if time_limit is None else time_limit,
                on_cell=on_cell,
            )
            outcome = {"status": "done"}
        except NotebookError as error:
            outcome = {"status": "failed", "error": str(error)}
            raise
        finally:
            seconds = time.monotonic() - start
            made = [file for file, stat in self._files().items() if before.get(file) != stat]
            if outcome["status"] == "done":
                record.forget(self.lab.figures, step.notebook, made=self._drawn(made))
            self.records[step.notebook] = {
                **outcome,
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
        own = ("run.json", MANIFEST, record.ABOUT, compare_report.REPORT)
        for path in self.lab.runs.rglob("*"):
            bookkeeping = path.suffix == ".ipynb" or path.name in own
            name = path.relative_to(self.root).as_posix()
            if path.is_file() and not bookkeeping and "/." not in name:
                stat = path.stat()
                found[name] = (stat.st_mtime_ns, stat.st_ino)
        return found

    def _drawn(self, files: Iterable[str]) -> list[str]:
        """Those of the files that are figures and tables, by name."""
        paths = (self.root / file for file in files)
        return [path.name for path in paths if path.parent == self.lab.figures]

    def _write(self) -> None:
        machine, profile = record.machine(), self.profile
        order = [step.notebook for step in profile.steps if step.notebook in self.records]
        write_json(
            self.file,
            {
                "profile": profile.name,
                "note": profile.note,
                "commit": commit(self.root),
                **machine,
                "versions": self.versions,
                "notebooks": {name: self.records[name] for name in order},
            },
        )
        record.describe(self.lab.figures, profile=profile, versions=self.versions)


def _say(line: str, *, passing: bool = False) -> None:
    """Print a line; a passing one only in a terminal, where the next line takes its place."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{line[:width] if passing else line}", end="" if passing else "\n")
    elif not passing:
        print(line)
    sys.stdout.flush()


def _plan(run: Run, steps: list[Step], given: argparse.Namespace) -> int:
    """Print what the steps will cost, or what a long queue asks of a cluster's driver."""
    if given.images is not None:
        parameters = {step.notebook: run.parameters[step.notebook] for step in steps}
        reach, note = scale.plan(
            parameters, run.profile.name, run.root,
            images=given.images, workers=given.workers, each=given.seconds,
        )  # fmt: skip
        sides = ("left", *("right",) * (reach.shape[1] - 1))
        print(f"{reach.to_markdown(index=False, colalign=sides)}\n\n{note}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        source = (
            "import matplotlib.pyplot, seaborn\nfrom tkmia_utils.report import slider as widgets"
        )
        empty = Path(folder) / "empty.ipynb"
        cell = nbformat.v4.new_code_cell(source)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), empty)
        begun = time.monotonic()
        execute(empty, Path(folder) / "done.ipynb", parameters={}, time_limit=1800)
        start = time.monotonic() - begun
    parameters = {step.notebook: run.parameters[step.notebook] for step in steps}
    table, note = estimate(parameters, run.profile.name, run.root, start=start)
    shown = table.assign(**{"image-iterations": table["image-iterations"].map("{:,}".format)})
    print(shown.to_markdown(floatfmt=".1f", colalign=("left", "right", "right", "right")))
    gpu = " and a GPU" if torch.cuda.is_available() else ""
    print(f"\n{note}\nOn {record.cores()} cores{gpu}.")
    return 0


def _close(run: Run, steps: list[Step], *, update: bool) -> None:
    """After a run: make it the record where that is asked for, else compare it with the record."""
    if update:
        print(f"{run.lab.record}: {run.update(steps)} files changed")
    elif run.profile.record:  # of other images, as a rule: there is nothing to compare
        tables = [run.lab.figures / name for name in REPORTED]
        print("".join(f"\n{p.read_text(encoding='utf-8')}" for p in tables if p.is_file()))
        print(f"More: {run.lab.figures}")
    elif (run.lab.record / MANIFEST).is_file():
        print(f"\n{compare_report.closing(run.lab)}")


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
    add("--images", type=int, metavar="N", help="with --plan: a queue of N images on a cluster")
    add(
        "--workers",
        type=int,
        default=1000,
        metavar="N",
        help="with --images: actors, 1000 if not said",
    )
    add("--seconds", type=float, metavar="S", help="with --images: an actor's, for one image")
    add("--time-limit", type=float, metavar="SECONDS", help="a notebook; default the profile's")
    add("--list", action="store_true", help="say what would be run, and stop")
    add("--update", action="store_true", help="make the run the record figures/<profile>")
    add("--compare", nargs="?", const="", metavar="PROFILE", help="run and record, and stop")
    add("--with", dest="other", metavar="FOLDER", help="a record elsewhere, for --compare")
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
        if given.compare is not None:
            name = given.compare or given.profile
            name = load_profile(name).name if name.endswith(".yaml") else name
            lab = Workspace(given.root, name, "pipeline", {})
            found, path = compare_report.saved(lab, given.other)
            print(f"{compare_report.report(found, few=compare_report.FEW)}\n-> {path}")
            return 0
        if not given.plan and (given.images is not None or given.seconds is not None):
            raise ValueError("--images, --seconds: say them with --plan PROFILE")
        if given.update and (given.list or given.plan):
            raise ValueError("--update: leave out --list and --plan")
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
        if given.update and given.only and not run.profile.record:
            raise ValueError("--update: a record is a whole run; leave out --only")
        steps = run.chosen(given.only)
        if given.plan:
            return _plan(run, steps, given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    forced = set(given.only) or set(run.keys) if given.force else set()
    limit = given.time_limit
    sweep_all([run.root / "cache", run.lab.runs])
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
    try:
        if not given.list:
            _close(run, steps, update=given.update)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
