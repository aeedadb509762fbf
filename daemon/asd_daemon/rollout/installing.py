"""What a new bundle would change for the machines of this box, and whether it may."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asd_daemon.errors import AsdError
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED
from asd_daemon.learn.enrolment_record import read_enrolment
from asd_daemon.learn.relearning import relearning_needs


def depends(bundle: Bundle, enrolled: Path, model: str) -> bool:
    """Whether a machine is judged by the bundle: it comes from it, or was learned here by its embedder.

    What was learned here by views alone is judged the same way with every bundle (decision 16).

    Args:
        bundle: the present one.
        enrolled: where machines lie that were learned here.
        model: the machine's name there and in the bundle.
    """
    try:
        record = read_enrolment(enrolled, model)
    except AsdError:
        return False  # nothing judges it, whatever the bundle
    if record is None:
        return model in bundle.manifest.machines
    return bool(set(record.views_used) & {HEARD, SEPARATED})


def objection_to(new: Bundle, present: Bundle, enrolled: Path, models: Sequence[str]) -> str | None:
    """Why a new bundle can't take the present one's place, in words; None where it can.

    Args:
        new: what is offered.
        present: what judges.
        enrolled: where machines lie that were learned here.
        models: of the machines that are heard.
    """
    judged = [model for model in models if depends(present, enrolled, model)]
    learned = {need.machine: need for need in relearning_needs(new, enrolled, judged)}
    for model, need in learned.items():
        if not need.can_be_done and model in judged:
            return f"{model} could not be judged with it until somebody lets it be heard again: {need.why}"
    for model in judged:
        if model not in learned and model not in new.manifest.machines and read_enrolment(enrolled, model) is None:
            return f"it does not know {model}, which is judged by the present one"
    return None
