"""The types of scheme S1: groups of classes that are hidden together, matched by class name."""

from tkmia_utils.data import coco, nus, voc
from tkmia_utils.data.base import MultiLabelDataset


def types_of(data: MultiLabelDataset) -> dict[str, tuple[str, ...]]:
    """Global sets of scheme S1: the paper's types, cut to the classes the data has.

    Parameters
    ----------
    data : MultiLabelDataset
        COCO has the types of Table 7, NUS-WIDE those of Table 8, all else VOC's of Table 6.
        Classes are matched by name, spaces and case aside ("dining table" is "diningtable").

    Returns
    -------
    dict of str to tuple of str
        Type to the data's own class names; a type without any is left out.
    """
    types = {"coco": coco.TYPES, "nus": nus.TYPES}.get(data.name, voc.TYPES)
    own = {_plain(name): name for name in data.classes}
    own |= {voc.ALIASES[name]: own[name] for name in voc.ALIASES if name in own}
    found = {
        name: tuple(own[_plain(c)] for c in members if _plain(c) in own)
        for name, members in types.items()
    }
    return {name: members for name, members in found.items() if members}


def _plain(name: str) -> str:
    return name.replace(" ", "").lower()
