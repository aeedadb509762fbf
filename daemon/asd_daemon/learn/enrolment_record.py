"""`enrolled.json`: what a machine was learned from and by, and whether this bundle and this program can judge by that.

Owns the words of the record. Fields are only ever added, with a default, and unknown ones are ignored, so that neither an older nor a
newer program stumbles over a record; whether it can be judged by is asked of its views, not of a version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asd_daemon.errors import EnrolmentError
from asd_daemon.judge.bundle.bundle import Bundle, BundlePath, FileEntry, MachineEntry, MachineName
from asd_daemon.judge.bundle.manifest import FUSION, HallEntry, MachineStates, NearestEntry
from asd_daemon.judge.features.views import VIEW_NAMES, view_sizes
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, SEPARATED
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.judge.scoring.verdict import OFF, RUNNING
from asd_daemon.learn.learning import LEAST_WINDOWS
from asd_daemon.learn.view_probes import ViewProbe, view_probes
from asd_daemon.private_files import write_private

RECORD = "enrolled.json"
MAX_RECORD_BYTES = 2**20

Finite = Annotated[float, Field(allow_inf_nan=False)]


MOST_LEFT_OUT = 0.5
"""Weight of the views that a machine may lose with their models and still be judged."""


class EnrolmentRecord(BaseModel):
    """`enrolled.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = Field(1, alias="schema")
    machine: MachineName
    created: str
    bundle: str = Field(description="name and version of the bundle that was in use")
    models: str | None = Field(
        None, description="SHA-256 of the models that heard it, up to version 0.2; null: its views need none"
    )
    entry: MachineEntry
    files: dict[BundlePath, FileEntry]
    windows: int = Field(ge=2)
    source: str = Field(description="what was listened to")
    microphone: str | None = Field(description="identity of the microphone, where it is one")
    level_dbfs: tuple[Finite, Finite, Finite] = Field(description="10th, 50th and 90th percentile of the windows' RMS")
    drift: Finite
    pseudo_auc: Finite | None = None  # up to version 0.2, where views were chosen by made-up changes
    contrast: Finite | None = None
    weights: tuple[tuple[str, Finite], ...]
    program: str | None = Field(None, description="version of asd-edge that learned it")
    views: dict[str, ViewProbe] = Field(
        default_factory=dict, description="how each view was computed that the vectors are of"
    )
    sounds: int = Field(0, ge=0, description="how many of its windows are kept as sound, to be heard again")
    relearned: str | None = Field(None, description="why it was learned anew from what was kept, where it was")
    states: MachineStates | None = Field(None, description="its states; null: one normal, and nobody knows it off")
    window_states: tuple[str, ...] = Field((), description="state of each window; empty: there is one only")
    hall: HallEntry | None = Field(None, description="its second microphone; null: it was learned with one")
    sound_rows: tuple[int, ...] = Field((), description="which windows those are that are kept as sound")
    nearest: NearestEntry | None = Field(
        None, description="embeddings of its normal sound, for `scoring: paper`; null: nobody has asked for them"
    )
    embedded_by: str | None = Field(None, description="SHA-256 of the models that these embeddings are of")
    place: tuple[str, ...] | None = Field(
        None,
        description="what disturbed at the microphone's place, most of the time; null: no sound was kept to say it",
    )

    @property
    def views_used(self) -> frozenset[str]:
        """The views that it is judged by."""
        if self.entry.views is not None:
            return frozenset(self.entry.views)
        return frozenset({HEARD, SEPARATED} if self.entry.separated else {HEARD})

    @property
    def state_names(self) -> tuple[str, ...]:
        """Its states, off first; none where it has one normal and nobody knows it off."""
        if self.states is None:
            return ()
        running = tuple(state.name for state in self.states.running) or (RUNNING,)
        return (*([OFF] if self.states.off else []), *running)

    @property
    def judged_entry(self) -> MachineEntry:
        """Its entry among a bundle's machines, with its states, its second microphone and its embeddings."""
        more = {"states": self.states, "hall": self.hall}
        return self.entry.model_copy(update={**more, "nearest": self.nearest} if self.nearest else more)

    def judged_files(self, scoring: Scoring = "auto") -> tuple[str, ...]:
        """What must be whole for it to be judged by."""
        if scoring == "paper" and self.nearest is not None:
            return (*self.nearest.files, *((self.hall.file,) if self.hall else ()))
        running = self.states.running if self.states else ()
        own = (f"{self.entry.folder}/{name}" for name in self.entry.files)
        of_hall = (self.hall.file,) if self.hall else ()
        near = self.hall.near if self.hall else None
        of_near = (f"{near.folder}/{name}" for name in near.files) if near else ()
        return (*own, *(f"{state.folder}/{FUSION}" for state in running), *of_hall, *of_near)


def models_hash(bundle: Bundle) -> str:
    """One hash for the models that make a bundle's embeddings, and for how neighbours of these are looked for."""
    manifest = bundle.manifest
    names = [m.file for m in (manifest.embedder, manifest.separator) if m is not None]
    ways = [manifest.files[name].sha256 for name in names]
    if manifest.bands > 1:
        ways.append(f"{manifest.bands} bands")
    return hashlib.sha256("".join(ways).encode()).hexdigest()


def read_enrolment(root: Path, machine: str) -> EnrolmentRecord | None:
    """A machine's record; None where it was not learned here.

    Raises:
        EnrolmentError: the record can't be read; says by whom, and what to do.
    """
    file = root / machine / RECORD
    try:
        with file.open("rb") as f:
            content = f.read(MAX_RECORD_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as e:
        raise EnrolmentError(
            f"{file}: can't be read: no right to; it was made by another user, root perhaps:"
            f" sudo chown -R --reference={root.parent} {root}"
        ) from e
    except OSError as e:
        raise EnrolmentError(f"{file}: can't be read: {e.strerror}; learn {machine} anew with --relearn") from e
    if len(content) > MAX_RECORD_BYTES:
        raise EnrolmentError(f"{file}: is larger than {MAX_RECORD_BYTES} bytes; learn {machine} anew with --relearn")
    try:
        return EnrolmentRecord.model_validate_json(content)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"])) or "record"
        raise EnrolmentError(f"{file}: {key}: {first['msg']}; learn {machine} anew with --relearn") from e


def write_record(home: Path, record: EnrolmentRecord) -> None:
    """Replace a machine's record.

    Raises:
        OSError: the disk refuses.
    """
    text = json.dumps(record.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False)
    write_private(home / RECORD, text + "\n")


def objection(record: EnrolmentRecord, bundle: Bundle) -> str | None:
    """Why a learned state can't be judged by with a bundle and this program, in words; None where it can."""
    invalid = {view: why for view in sorted(record.views_used) if (why := view_objection(record, view, bundle))}
    if not invalid or invalid.keys() == views_left_out(record, bundle):
        return None
    return f"{record.machine} was learned with {record.bundle}: " + "; ".join(
        f"view {view} {why}" for view, why in invalid.items()
    )


def nearest_objection(record: EnrolmentRecord, bundle: Bundle) -> str | None:
    """Why a machine can't be judged by its nearest neighbour with a bundle that has an embedder, in words; None where it can."""
    if record.entry.views is None:
        return objection(record, bundle)
    if record.nearest is None:
        return f"{record.machine} was learned by views alone, and has no embeddings to be compared with"
    if record.embedded_by != models_hash(bundle):
        return f"{record.machine}: its embeddings are of other models than those of {bundle.name} {bundle.version}"
    return None


def views_left_out(record: EnrolmentRecord, bundle: Bundle) -> frozenset[str]:
    """Views that a machine may be judged without: those of models that are gone, where most of its weight lies on others that hold.

    A machine of version 0.1 or 0.2 is judged by views of its sound and with a small part by an embedding: without that it is judged
    almost as well, and not at all it must never be.
    """
    if record.entry.views is None or record.states is not None or record.hall is not None:
        return frozenset()
    of_models = {
        view for view in (HEARD, SEPARATED) if view in record.views_used and view_objection(record, view, bundle)
    }
    others = record.views_used - {HEARD, SEPARATED}
    holds = bool(others) and not any(view_objection(record, view, bundle) for view in others)
    weight = sum(weight for view, weight in record.weights if view in of_models)
    return frozenset(of_models) if holds and weight <= MOST_LEFT_OUT else frozenset()


def view_objection(record: EnrolmentRecord, view: str, bundle: Bundle) -> str | None:
    """Why a record's vectors of one view mean something else today; None where they mean the same."""
    return _model_objection(record, view, bundle) if view in (HEARD, SEPARATED) else _view_change(record, view)


def _view_change(record: EnrolmentRecord, view: str) -> str | None:
    """How a view that needs no model differs from what it was."""
    sizes: Mapping[str, int] = view_sizes()
    if view not in sizes:
        return f"is not known to this asd-edge, which has {', '.join(sizes)}"
    then, now = record.views.get(view), view_probes().get(view)
    if then is not None and now is not None and not then.same_as(now):
        return "is computed otherwise by this asd-edge"
    return None


def _model_objection(record: EnrolmentRecord, view: str, bundle: Bundle) -> str | None:
    if view == SEPARATED and bundle.manifest.separator is None:
        return f"needs a separator, which {bundle.name} {bundle.version} does not have"
    if bundle.manifest.embedder is None:
        return f"needs the models that it was learned with, and {bundle.name} {bundle.version} has none"
    if record.models == models_hash(bundle):
        return None
    return f"needs its models, and {bundle.name} {bundle.version} has others"


def can_relearn(record: EnrolmentRecord) -> bool:
    """Whether a machine can be learned anew from what was kept, without hearing it again."""
    return record.sounds >= LEAST_WINDOWS or (record.windows >= LEAST_WINDOWS and bool(valid_views(record)))


def can_embed(record: EnrolmentRecord) -> bool:
    """Whether a machine's embeddings can be computed anew from what was kept."""
    return record.sounds >= LEAST_WINDOWS


def valid_views(record: EnrolmentRecord) -> tuple[str, ...]:
    """The views that machines are learned by of which a record's vectors still hold; none of version 0.2, which had others."""
    kept = record.views or record.entry.views or ()
    return tuple(view for view in VIEW_NAMES if view in kept and _view_change(record, view) is None)
