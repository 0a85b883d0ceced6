"""Command line: ``python -m tkmia_utils.course make``, ``... student`` and ``... grade``."""

import argparse
import importlib
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tkmia_utils.course import report
from tkmia_utils.course.grade import Graded, Item, grade, grade_folder
from tkmia_utils.course.handout import make_course
from tkmia_utils.course.sandbox import CannotStart, Limits, guard
from tkmia_utils.course.strip import make_student

_REPOSITORY = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None, *, items: Sequence[Item] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the command line without it.
    items : sequence of Item, optional
        What to grade; the course's own without it, and then the seed is told.

    Returns
    -------
    int
        0, whatever the grades are; 2 for arguments that make no sense, or where no grading works.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "student":
            for path in make_student(options.source, options.out):
                print(path)
        elif options.command == "make":
            print(make_course(options.root, options.out))
        else:
            _grade(options, items)
    except (ValueError, CannotStart) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def course_items(*, seed: int) -> list[Item]:
    """The exercises of the course, each with its check.

    Parameters
    ----------
    seed : int
        Of the random inputs, the same for each submission.

    Returns
    -------
    list of Item
        In the order of the notebooks.
    """
    check = importlib.import_module("tkmia_utils.course.check")  # takes a while to load
    return [
        Item(e.name, float(e.points), partial(check.run, e.name, seed=seed), number=e.number)
        for e in check.EXERCISES.values()
    ]


def _grade(options: argparse.Namespace, items: Sequence[Item] | None) -> None:
    if items is None:
        seed = secrets.randbits(32) if options.seed is None else options.seed
        print(f"inputs of the checks: --seed {seed}", file=sys.stderr)
        items = course_items(seed=seed)
    items = _chosen(items, only=options.only, hidden=options.hidden)
    limits = Limits(
        exercise=options.exercise_limit, total=options.total_limit, memory=options.memory << 20
    )
    work, out = Path(options.work), Path(options.out)
    if not work.exists():
        raise ValueError(f"work: expected a notebook or a folder, got {work}")
    if not work.is_dir():
        graded = grade(work, items, limits=limits)
        report.write(graded, out, visibility=options.hidden_visibility)
        print(report.as_markdown(graded), end="")
        return
    rows: list[Graded] = []
    for graded in grade_folder(work, items, limits=limits):
        rows.append(graded)
        home = out / Path(graded.name).with_suffix("")
        report.write(graded, home, visibility=options.hidden_visibility)
        # Written anew each time: what is graded is there, whatever ends the rest.
        report.write_text(report.as_csv(rows), out / "grades.csv")
        print(f"{graded.name}: {graded.score:g} of {graded.max_score:g}", flush=True)


def _chosen(items: Sequence[Item], *, only: str | None, hidden: str | None) -> list[Item]:
    def named(argument: str, text: str | None, otherwise: set[str]) -> set[str]:
        if text is None:
            return otherwise
        found: set[str] = set()
        for word in text.split(","):
            more = {i.name for i in items if word in (i.name, i.number, i.number.split(".")[0])}
            if not more:
                raise ValueError(f"{argument}: expected some of {sorted(names)}, got {word!r}")
            found |= more
        return found

    names = {item.name for item in items}
    wanted, back = named("only", only, names), named("hidden", hidden, set())
    return [replace(i, hidden=i.hidden or i.name in back) for i in items if i.name in wanted]


def _parser() -> argparse.ArgumentParser:
    defaults = Limits()
    parser = argparse.ArgumentParser(prog="python -m tkmia_utils.course", description="The course.")
    commands = parser.add_subparsers(dest="command", required=True)
    student = commands.add_parser("student", help="make students' notebooks from solutions")
    student.add_argument("source", help="a solution notebook, or a folder of them")
    student.add_argument("out", help="a notebook, or a folder")
    maker = commands.add_parser("make", help="make the students' and the teacher's folder")
    maker.add_argument("out", help="a new or an empty folder")
    maker.add_argument("--root", default=_REPOSITORY, help="the repository (default: this one)")
    grader = commands.add_parser("grade", help="grade a submission, or a folder of them")
    grader.add_argument("work", help="a student's notebook, or a folder of them")
    grader.add_argument(
        "--out", required=True, help="folder for results.json, report.md, grades.csv"
    )
    grader.add_argument(
        "--only",
        metavar="NAMES",
        help="of exercises or numbers of notebooks",
    )
    grader.add_argument("--hidden", metavar="NAMES", help="what is kept from students")
    grader.add_argument(
        "--hidden-visibility",
        choices=report.VISIBILITIES,
        default="after_published",
        help="when Gradescope shows the hidden ones (default: %(default)s)",
    )
    for name, seconds in (("exercise", defaults.exercise), ("total", defaults.total)):
        grader.add_argument(f"--{name}-limit", type=float, default=seconds, metavar="SECONDS")
    grader.add_argument("--seed", type=int, help="of the checks' inputs, to grade the same again")
    grader.add_argument("--memory", type=int, default=defaults.memory >> 20, metavar="MB")
    return parser


if __name__ == "__main__":
    guard()
    sys.exit(main())
