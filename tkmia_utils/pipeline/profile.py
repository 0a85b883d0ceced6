"""Plans a run: which notebooks, with which parameters, all checked before anything starts.

A profile is a YAML file that names the notebooks in order, what each needs, and the parameters
that differ from those in the notebook's own cell tagged ``parameters``.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml

from tkmia_utils.workspace import check_name, declared

PROFILES = Path(__file__).parent / "profiles"
SUPPLIED = ("profile", "workspace")  # parameters only the pipeline gives


class _Yaml(yaml.SafeLoader):
    """YAML in which ``1e-3`` is a number, as its 1.2 says, not text."""


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"]
)


@dataclass(frozen=True)
class Step:
    """One notebook of a profile: its name, the notebooks it needs, its own parameters.

    `reads` are folders of the repository whose files it reads: when one changes, it is done again.
    """

    notebook: str
    needs: tuple[str, ...]
    parameters: dict[str, Any]
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """What to run: see ``tkmia_utils/pipeline/profiles/quick.yaml`` for the form.

    `time_limit` is in seconds a notebook; `common` goes to every notebook that declares it.
    `record` are patterns of file names: what of a run becomes the record; none stands for all.
    """

    name: str
    note: str
    time_limit: float
    common: dict[str, Any]
    steps: tuple[Step, ...]
    record: tuple[str, ...] = ()


def load_profile(which: str | Path) -> Profile:
    """Read a profile by name, or from a path that ends in ``.yaml``.

    Raises
    ------
    ValueError
        No such profile, an unknown or missing field, a wrong type, or a need that does not come
        earlier in the list.
    """
    raw = _read_profile(str(which), Path(), ())
    check_name(raw.get("name"), name=f"{which}: name")
    limit = raw.get("time_limit")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise ValueError(f"{which}: time_limit: expected seconds above 0, got {limit!r}")
    steps: list[Step] = []
    for name, entry in raw["notebooks"].items():
        earlier = [step.notebook for step in steps]
        for need in entry["needs"]:
            check_known(need, earlier, f"{which}: {name}: needs", "an earlier notebook")
        steps.append(Step(name, tuple(entry["needs"]), entry["parameters"], tuple(entry["reads"])))
    if not steps:
        raise ValueError(f"{which}: notebooks: expected at least one")
    kept = raw.get("record", [])
    if not isinstance(kept, list) or not all(isinstance(item, str) for item in kept):
        raise ValueError(f"{which}: record: expected a list of patterns, got {kept!r}")
    note = raw.get("note", "")
    return Profile(raw["name"], note, limit, raw["common"], tuple(steps), tuple(kept))


def _read_profile(which: str, folder: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    by_path = which.endswith((".yaml", ".yml"))
    path = (folder / which if by_path else PROFILES / f"{which}.yaml").resolve()
    if not path.is_file():
        names = sorted(p.stem for p in PROFILES.glob("*.yaml"))
        known = f"{_nearest(which, names)}; profiles: {', '.join(names)}"
        raise ValueError(f"profile: there is no {path if by_path else repr(which) + known}")
    if path in seen:
        raise ValueError(f"{which}: extends: goes round in a circle")
    raw = _mapping(_parse(path.read_text(encoding="utf-8"), which), which)
    for field in raw:
        fields = ["name", "note", "extends", "time_limit", "common", "notebooks", "record"]
        check_known(field, fields, which, "a field of a profile")
    if "name" not in raw:
        raise ValueError(f"{which}: name: is missing")
    base: dict[str, Any] = {"common": {}, "notebooks": {}}
    if "extends" in raw:
        base = _read_profile(str(raw["extends"]), path.parent, (*seen, path))
    notebooks = dict(base["notebooks"])
    for entry in raw.get("notebooks") or []:
        entry = _mapping(entry, f"{which}: notebooks")
        for field in entry:
            fields = ["notebook", "needs", "reads", "parameters"]
            check_known(field, fields, f"{which}: notebooks", "a field of a notebook")
        name = entry.get("notebook")
        check_name(name, name=f"{which}: notebook")
        old = notebooks.get(name, {"needs": [], "reads": [], "parameters": {}})
        own = _mapping(entry.get("parameters"), f"{which}: {name}: parameters")
        lists = {field: entry.get(field, old[field]) for field in ("needs", "reads")}
        for field, value in lists.items():
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{which}: {name}: {field}: expected a list, got {value!r}")
        notebooks[name] = {**lists, "parameters": {**old["parameters"], **own}}
    common = {**base["common"], **_mapping(raw.get("common"), f"{which}: common")}
    return {**base, **raw, "common": common, "notebooks": notebooks}


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Yaml)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not YAML: {error}") from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value or {}, Mapping):
        raise ValueError(f"{where}: expected 'name: value' pairs, got {value!r}")
    return dict(value or {})


def _nearest(word: str, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(words), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_known(word: str, words: Iterable[str], where: str, what: str) -> None:
    """Refuse (``ValueError``) a `word` that is not one of `words`, naming the nearest."""
    if word not in words:
        raise ValueError(f"{where}: {word!r} is not {what}{_nearest(word, words)}")


def resolve(
    profile: Profile, root: str | Path, settings: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Every parameter of every notebook of `profile`, checked against what notebooks declare.

    Parameters
    ----------
    profile : Profile
        What :func:`load_profile` returns.
    root : str or Path
        Folder that holds ``notebooks/``.
    settings : mapping, optional
        The command line's ``--set``, as text; they win over the profile.

    Returns
    -------
    dict
        Notebook name -> parameter name -> value.

    Raises
    ------
    ValueError
        A notebook that is not there, a name no notebook declares, or a value whose type is not
        that of the default.
    """
    folder, settings = Path(root) / "notebooks", settings or {}
    files = {path.stem: path for path in folder.glob("*.ipynb")}
    for step in profile.steps:
        check_known(step.notebook, files, f"profile {profile.name}", f"a notebook of {folder}")
    defaults = {step.notebook: declared(files[step.notebook]) for step in profile.steps}
    everywhere = {name for own in defaults.values() for name in own}
    for where, given in (("common", profile.common), ("--set", settings)):
        for name in given:
            _check_parameter(name, everywhere, where)
    resolved = {}
    for step in profile.steps:
        own = defaults[step.notebook]
        for name in step.parameters:
            _check_parameter(name, own, step.notebook)
        given = {**profile.common, **step.parameters, **settings}
        values = dict(own)
        for name in own.keys() & given.keys():
            value = given[name]
            if name in settings and not isinstance(own[name], str):
                value = None if value == "None" else _parse(value, f"--set {name}")
            values[name] = _fit(value, own[name], f"{step.notebook}: {name}")
        supplied = {"profile": profile.name, "workspace": ".."}
        resolved[step.notebook] = {name: supplied.get(name, values[name]) for name in own}
    return resolved


def _check_parameter(name: str, names: Iterable[str], where: str) -> None:
    if name in SUPPLIED:
        raise ValueError(f"{where}: {name!r} is given by the pipeline itself")
    check_known(name, names, where, "a declared parameter")


def _fit(value: Any, default: Any, where: str) -> Any:
    """`value` if its type is that of `default` (None: any; an int may stand for a float)."""
    kinds = (list, tuple) if isinstance(default, list | tuple) else (type(default),)
    if type(default) is float and type(value) is int:
        return float(value)
    if default is not None and type(value) not in kinds:
        raise ValueError(f"{where}: expected {kinds[0].__name__} like {default!r}, got {value!r}")
    if kinds[0] is list and len({type(item) for item in default}) == 1:
        return [_fit(item, default[0], where) for item in value]
    return value


def title(notebook: str | Path) -> str:
    """The first heading of a notebook, without its number."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        heading = re.search(r"^# (?:\d+[a-z]?\s*[·.:]\s*)?(.+)$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and heading:
            return heading[1].strip()
    return ""
