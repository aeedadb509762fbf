"""What a new bundle would change for the machines of this box, and whether it may."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asd_daemon.errors import AsdError
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, SEPARATED
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.learn.enrolment_record import read_enrolment
from asd_daemon.learn.relearning import relearning_needs


def depends(bundle: Bundle, enrolled: Path, model: str, scoring: Scoring = "auto") -> bool:
    """Whether a machine is judged by the bundle: it comes from it, or is judged by its embedder.

    What was learned here by views alone is judged the same way with every bundle (decision 16).

    Args:
        bundle: the present one.
        enrolled: where machines lie that were learned here.
        model: the machine's name there and in the bundle.
        scoring: by what it is judged.
    """
    try:
        record = read_enrolment(enrolled, model)
    except AsdError:
        return False  # nothing judges it, whatever the bundle
    if record is None:
        return model in bundle.manifest.machines
    return scoring == "paper" or bool(record.views_used & {HEARD, SEPARATED})


def learned_anew(new: Bundle, enrolled: Path, model: str, scoring: Scoring = "auto") -> bool:
    """Whether a machine would be learned anew from what was kept: until then another bundle can't judge it."""
    return bool(relearning_needs(new, enrolled, [model], scoring))


def objection_to(new: Bundle, present: Bundle, enrolled: Path, models: Mapping[str, Scoring]) -> str | None:
    """Why a new bundle can't take the present one's place, in words; None where it can.

    Args:
        new: what is offered.
        present: what judges.
        enrolled: where machines lie that were learned here.
        models: of the machines that are heard, and by what each is judged.
    """
    for model, scoring in models.items():
        if not depends(present, enrolled, model, scoring):
            continue
        if scoring == "paper" and new.manifest.embedder is None:
            return f"it has no embedder, by which {model} is judged"
        for need in relearning_needs(new, enrolled, [model], scoring):
            if not need.can_be_done:
                return f"{model} could not be judged with it until somebody lets it be heard again: {need.why}"
        if model not in new.manifest.machines and read_enrolment(enrolled, model) is None:
            return f"it does not know {model}, which is judged by the present one"
    return None
