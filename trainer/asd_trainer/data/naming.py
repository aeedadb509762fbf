"""What the file names of the DCASE Task 2 data sets say, 2020 to 2026.

Owns the patterns. It opens no file and knows no folders but the split that a file lies in.

    2020   normal_id_01_00000000, anomaly_id_01_00000000; without labels: id_01_00000000
    2021 … section_00_source_train_normal_0000_vel_6_loc_A, section_00_target_test_anomaly_0012_noAttribute
           without the split in one machine of 2024: section_00_source_normal_0035_weight15_BckgF
    eval   section_00_0001, section_00_test_0001, section_00_source_test_0001: no label, mostly no domain
    supplemental   any name that begins with section_00_ and has machine or noise as a word before its number
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test", "supplemental"]
Domain = Literal["source", "target"]
Label = Literal["normal", "anomaly"]
Supplement = Literal["machine", "noise"]
Attributes = tuple[tuple[str, str], ...]

_NAMED = re.compile(
    r"section_(?P<section>\d+)_(?P<domain>source|target)(_(?P<split>train|test))?(_(?P<label>normal|anomaly))?_\d+(_(?P<words>.*))?"
)
_ANONYMOUS = re.compile(r"section_(?P<section>\d+)(_test)?_\d+_?")
_OF_2020 = re.compile(r"((?P<label>normal|anomaly)_)?id_(?P<section>\d+)_\d+")
_SUPPLEMENTAL = re.compile(r"section_(?P<section>\d+)_(?P<head>\D*?)_?(\d+)(_(?P<words>.*))?")
_HIDDEN = "noattribute"


class MisnamedError(ValueError):
    """A name that no layout has, or one that contradicts its folder; the message is the reason."""


@dataclass(frozen=True)
class ClipName:
    """What a name says; None where it is silent."""

    section: str
    domain: Domain | None = None
    label: Label | None = None
    attributes: Attributes = ()
    hidden: bool = False
    """The name says that the attributes are withheld (noAttribute)."""
    supplement: Supplement | None = None
    of_2020: bool = False


def parse_name(stem: str, split: Split) -> ClipName:
    """Read a file name without its suffix.

    Raises:
        MisnamedError: no layout has such a name, or it names another split, or an anomaly in the train split.
    """
    if split == "supplemental":
        return _supplemental(stem)
    if (named := _NAMED.fullmatch(stem)) and (named["split"] or named["label"]):
        if named["split"] not in (None, split):
            raise MisnamedError(f"its name says {named['split']}, its folder {split}")
        _refuse_anomaly(named["label"], split)
        attributes, hidden = _attributes(named["words"] or "")
        return ClipName(named["section"], _domain(named["domain"]), _label(named["label"]), attributes, hidden)
    if old := _OF_2020.fullmatch(stem):
        _refuse_anomaly(old["label"], split)
        if old["label"] is None and split == "train":
            raise MisnamedError("its name has no label; a training clip of 2020 begins with normal_")
        return ClipName(old["section"], label=_label(old["label"]), of_2020=True)
    if (anonymous := _ANONYMOUS.fullmatch(stem)) and split == "test":
        return ClipName(anonymous["section"])
    wanted = (
        "section_00_source_train_normal_0000_name_value"
        if split == "train"
        else "section_00_source_test_normal_0000_name_value"
    )
    raise MisnamedError(f"its name fits no DCASE layout; expected for example {wanted}")


def looks_like_dcase(stem: str) -> bool:
    """Whether a name means to follow a DCASE layout, rightly or wrongly."""
    return stem.startswith("section_") or _OF_2020.match(stem) is not None


def hides_attributes(text: str) -> bool:
    """Whether a name, or the words at its end, says that attributes are withheld (noAttribute)."""
    return any(word.lower().startswith(_HIDDEN) for word in text.split("_"))


def same_attributes(a: Attributes, b: Attributes) -> bool:
    """Whether two lists say the same; numbers are compared as numbers, because tables lose trailing zeros."""

    def plain(attributes: Attributes) -> list[tuple[str, str | float]]:
        return sorted(((name, _number(value)) for name, value in attributes), key=repr)

    return plain(a) == plain(b)


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _domain(word: str) -> Domain:
    return "target" if word == "target" else "source"


def _label(word: str | None) -> Label | None:
    return "anomaly" if word == "anomaly" else "normal" if word == "normal" else None


def _refuse_anomaly(label: str | None, split: Split) -> None:
    if label == "anomaly" and split == "train":
        raise MisnamedError("is named an anomaly but lies in the train split, which holds normal sound only")


def _supplemental(stem: str) -> ClipName:
    named = _SUPPLEMENTAL.fullmatch(stem)
    if named is None:
        raise MisnamedError("its name fits no supplemental clip; expected for example section_00_machine_0001")
    words = named["head"].split("_")
    kinds: list[Supplement] = [kind for kind in ("machine", "noise") if kind in words]
    if len(kinds) != 1:
        raise MisnamedError(
            "its name must have either _machine_ or _noise_ before its number: which of the two does it hold?"
        )
    attributes, hidden = _attributes(named["words"] or "")
    return ClipName(
        named["section"], "target" if "target" in words else "source", "normal", attributes, hidden, kinds[0]
    )


def _attributes(text: str) -> tuple[Attributes, bool]:
    """Words in pairs of name and value; a last word without a value keeps an empty one."""
    words = [word for word in text.split("_") if word]
    if hides_attributes(text):
        return (), True
    if len(words) % 2:
        words.append("")
    return tuple(zip(words[::2], words[1::2], strict=True)), False


def table_attributes(cells: list[str]) -> Attributes:
    """Attributes of a row of attributes_00.csv: name, value, name, value …; empty pairs and noAttribute are none."""
    pairs = zip(cells[::2], cells[1::2], strict=False)
    return tuple(
        (name.strip(), value.strip()) for name, value in pairs if name.strip() and not name.lower().startswith(_HIDDEN)
    )
