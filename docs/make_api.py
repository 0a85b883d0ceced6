"""Writes docs/api.md from signatures and docstrings: ``make docs``; ``--check`` only compares.

The sources are read, not imported. A docstring that names a parameter or field which is not there,
or leaves one out, is refused.
"""

import argparse
import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
# Title and module; of a package what its __all__ names, of a module all that is public.
CHAPTERS = {
    "Attacking": "tkmia_utils",
    "Several attacks side by side": "tkmia_utils.report.compare_attacks",
    "A result as a figure": "tkmia_utils.report.result_figure",
    "The attacks": "tkmia_utils.attacks",
    "When a promise is kept": "tkmia_utils.condition",
    "Measures": "tkmia_utils.measures",
    "Losses": "tkmia_utils.losses",
    "The top k and Lemma 4.1": "tkmia_utils.topk",
    "The owner's monitor": "tkmia_utils.monitor",
    "Defences": "tkmia_utils.defence",
    "Which labels are specified": "tkmia_utils.experiments.selection",
    "Data": "tkmia_utils.data",
    "Victims": "tkmia_utils.victims",
    "Cells and queues": "tkmia_utils.experiments.protocol",
    "Tables with intervals": "tkmia_utils.report.tables",
    "Folders of a run": "tkmia_utils.workspace",
}
HEAD = """\
# The public interface

Written by `make docs` from the docstrings; do not edit it. Images are float32 `(N, 3, H, W)` in
[0, 1], logits `(N, C)`, label masks bool `(N, C)`; `k` is one int or int64 `(N,)`. Arguments after
`*` are given by name. Bad input is a `ValueError` that begins with the argument's name.
"""
LISTS = ("Parameters", "Attributes", "Returns", "Yields", "Warns")
Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Docstring:
    """A NumPy docstring in parts.

    Attributes
    ----------
    text : str
        What stands before the first headline.
    sections : dict of str to str
        Headline to what stands under it.
    """

    text: str
    sections: dict[str, str]

    def entries(self, section: str) -> list[tuple[str, str]]:
        """Pairs of "name : type" and description."""
        text = re.sub(r",\n(?=\S)", ", ", self.sections.get(section, "").strip("\n"))
        blocks = re.split(r"\n(?=\S)", text)
        pairs = [block.partition("\n") for block in blocks if block]
        return [(head.strip(), " ".join(body.split())) for head, _, body in pairs]

    def names(self, section: str) -> list[str]:
        """The names that a section describes."""
        heads = [head.partition(" : ")[0] for head, _ in self.entries(section)]
        return [name.strip().lstrip("*") for head in heads for name in head.split(",")]


def parse(node: Definition | ast.Module) -> Docstring:
    """Cut a docstring at its underlined headlines."""
    text = ast.get_docstring(node) or ""
    first, *rest = re.split(r"(?m)^([A-Z]\w+)\n-{3,}\n", text)
    return Docstring(first.strip(), dict(zip(rest[::2], rest[1::2], strict=True)))


def module_path(module: str) -> Path:
    """The file of a module or package."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def definitions(module: str) -> list[Definition]:
    """Public functions and classes of a module, in the order of its file or of its ``__all__``."""
    body = ast.parse(module_path(module).read_text(encoding="utf-8")).body
    own = {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    homes = {a.name: n.module for n in body if isinstance(n, ast.ImportFrom) for a in n.names}
    listed = [
        ast.literal_eval(n.value)
        for n in body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
    ]
    if not listed:
        return [node for name, node in own.items() if not name.startswith("_")]
    found: list[Definition] = []
    for name in listed[0]:
        if name in own:
            found.append(own[name])
        elif home := homes.get(name):
            found += [node for node in definitions(home) if node.name == name]
    return found


def arguments(node: ast.FunctionDef) -> list[str]:
    """Names of a function's arguments, without ``self``."""
    given = node.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [a.arg for a in every if a is not None and a.arg not in ("self", "cls")]


def fields(node: ast.ClassDef) -> list[str]:
    """Names of the annotated attributes in a class's body."""
    body = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    return [name for n in body if not (name := ast.unparse(n.target)).startswith("_")]


def signature(node: ast.FunctionDef, name: str) -> str:
    """As in the source; an argument a line where one line is too long."""
    bare = ast.FunctionDef(name, node.args, [ast.Pass()], [], node.returns)
    line = ast.unparse(ast.fix_missing_locations(bare)).removeprefix("def ").partition(":\n")[0]
    line = re.sub(r"\((self|cls)(, )?", "(", line)
    inside, _, end = line.removeprefix(f"{name}(").rpartition(")")
    parts, depth = [""], 0
    for sign in inside:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    parts = [re.sub(r"^(\w+: [^=]+)=", r"\1 = ", part.strip()) for part in parts if part]
    line = f"{name}({', '.join(parts)}){end}"
    if len(line) <= 88:
        return line
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){end}"])


def check(node: Definition, where: str) -> None:
    """Refuse (``ValueError``) a docstring that names other things than the code."""
    if isinstance(node, ast.FunctionDef):
        section, there, optional = "Parameters", set(arguments(node)), node.args.kwarg
    elif any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        section, there, optional = "Attributes", set(fields(node)), None
    else:
        return
    said = set(parse(node).names(section))
    free = {optional.arg} if optional else set()  # prose may say where the rest goes
    if said and said | free != there | free:
        raise ValueError(f"{where}: {section} differ in {sorted(said ^ there)}")


def markdown(text: str) -> str:
    """Docstring prose as Markdown: roles and double backquotes become code."""
    text = re.sub(r":\w+:`~(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(r"::\n", ":\n", text)


def listing(doc: Docstring) -> str:
    """Parameters, fields and results as lists."""
    parts = []
    for section in LISTS:
        lines = []
        for head, body in doc.entries(section):
            name, _, kind = head.partition(" : ")
            label = f"`{name}`" + (f" ({markdown(kind)})" if kind else "")
            lines.append(f"- {label}" + (f": {markdown(body)}" if body else ""))
        if lines:
            parts.append("\n".join([f"**{section}**", "", *lines]))
    if "Raises" in doc.sections:
        why = " ".join(body for _, body in doc.entries("Raises"))
        parts.append(f"**Raises**: {markdown(why)}" if why else "")
    return "\n\n".join(filter(None, parts))


def function(node: ast.FunctionDef, *, module: str, level: int) -> str:
    """One function, or one method of a class."""
    check(node, f"{module}.{node.name}")
    doc = parse(node)
    shown = signature(node, node.name)
    if "property" in map(ast.unparse, node.decorator_list):
        shown = shown.replace("() ->", ":").replace("'", '"')  # as ruff quotes types
    code = f"```python\n{shown}\n```"
    return "\n\n".join(
        filter(None, [f"{'#' * level} {node.name}", code, markdown(doc.text), listing(doc)])
    )


def entry(node: Definition, module: str) -> str:
    """One function or class."""
    if isinstance(node, ast.FunctionDef):
        return function(node, module=module, level=3)
    check(node, f"{module}.{node.name}")
    doc = parse(node)
    methods = [
        function(n, module=f"{module}.{node.name}", level=4)
        for n in node.body
        if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")
    ]
    title = f"### class {node.name}"
    return "\n\n".join(filter(None, [title, markdown(doc.text), listing(doc), *methods]))


def page() -> str:
    """The whole page."""
    index = [f"- [{title}](#{slug(title)}): `{module}`" for title, module in CHAPTERS.items()]
    chapters = []
    for title, module in CHAPTERS.items():
        about = parse(ast.parse(module_path(module).read_text(encoding="utf-8"))).text
        entries = [entry(node, module) for node in definitions(module)]
        chapters.append("\n\n".join([f"## {title}", f"`{module}`. {markdown(about)}", *entries]))
    return "\n\n".join([HEAD.strip(), "\n".join(index), *chapters]) + "\n"


def slug(title: str) -> str:
    """The anchor of a headline."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or say whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    text = page()
    if parser.parse_args(arguments).check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        print("docs/api.md is up to date" if same else "docs/api.md is old: run make docs")
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
