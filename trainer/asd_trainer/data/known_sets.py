"""How many clips the public data sets hold: a table of clips that are not here, for plans.

Owns the counts. They are those of the challenge's descriptions (the sections of 2020 and the clean and noise-only clips of 2025 are not
stated for each machine: those of 2020's additional data are taken as 1 000 a section, and every second machine has clean clips). Nothing
is read, and no clip of the table can be loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable
from asd_trainer.data.fetch import FOLDERS, Part
from asd_trainer.data.naming import Domain, Supplement


@dataclass(frozen=True)
class _Machines:
    """Machines of a part of a year that are alike in number."""

    names: tuple[str, ...]
    source: int
    """Training clips of the source domain, or without domains, a section."""
    target: int
    supplemental: int = 0
    sections: int = 1


_SEVEN = ("ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve")
_OF_2021 = ("ToyCar", "ToyTrain", "fan", "gearbox", "pump", "slider", "valve")
_TOYS_2020 = ("ToyCar", "ToyConveyor")
_MIMII_2020 = ("fan", "pump", "slider", "valve")
_EIGHT = ("AutoTrash", "BandSealer", "CoffeeGrinder", "HomeCamera", "Polisher", "ScrewFeeder", "ToyPet", "ToyRCCar")
_NINE = (
    "3DPrinter",
    "AirCompressor",
    "BrushlessMotor",
    "HairDryer",
    "HoveringDrone",
    "RoboticArm",
    "Scanner",
    "ToothBrush",
    "ToyCircuit",
)
_OF_2023 = ("ToyDrone", "ToyNscale", "ToyTank", "Vacuum", "bandsaw", "grinder", "shaker")
_OF_2026 = ("ToyCar", "ToyCarEmu", "bearingEmu", "fan", "gearboxEmu", "sliderEmu", "valveEmu")
_NEW_2026 = ("BlowerDustCollector", "Sander", "SewingMachine", "ToothBrush", "ToyDrone")

_SETS: dict[int, dict[Part, tuple[_Machines, ...]]] = {
    2020: {
        "dev": (
            _Machines(("fan",), 3675, 0),
            _Machines(("pump",), 3349, 0),
            _Machines(("slider",), 2804, 0),
            _Machines(("valve",), 3291, 0),
            _Machines(("ToyCar",), 4000, 0),
            _Machines(("ToyConveyor",), 3000, 0),
        ),
        "train": (_Machines((*_TOYS_2020, *_MIMII_2020), 1000, 0, sections=3),),
    },
    2021: {
        "dev": (_Machines(_OF_2021, 1000, 3, sections=3),),
        "train": (_Machines(_OF_2021, 1000, 3, sections=3),),
    },
    2022: {
        "dev": (_Machines(_SEVEN, 990, 10, sections=3),),
        "train": (_Machines(_SEVEN, 990, 10, sections=3),),
    },
    2023: {"dev": (_Machines(_SEVEN, 990, 10),), "train": (_Machines(_OF_2023, 990, 10),)},
    2024: {"dev": (_Machines(_SEVEN, 990, 10),), "train": (_Machines(_NINE, 990, 10),)},
    2025: {"dev": (_Machines(_SEVEN, 990, 10, 100),), "train": (_Machines(_EIGHT, 990, 10, 100),)},
    2026: {"dev": (_Machines(_OF_2026, 990, 10, 100),), "train": (_Machines(_NEW_2026, 990, 10, 100),)},
}


LAST_STATED = 2025
"""The year of the report."""


def known_clips(years: Sequence[int], parts: Sequence[Part]) -> ClipTable:
    """The training and supplemental clips that these parts of these years hold, by what is known of them, without attributes."""
    clips = [
        clip
        for year in sorted(set(years))
        for part in parts
        for machines in _SETS[year].get(part, ())
        for clip in _clips(year, part, machines)
    ]
    return ClipTable(tuple(clips))


def _clips(year: int, part: Part, machines: _Machines) -> Iterator[Clip]:
    domains: tuple[tuple[Domain | None, int], ...] = (("source", machines.source), ("target", machines.target))
    if year == 2020:
        domains = ((None, machines.source),)
    for position, name in enumerate(machines.names):
        folder = f"dcase{year}t2/{FOLDERS[part]}/raw/{name}"
        lone: Supplement = "machine" if position % 2 == 0 else "noise"
        for number in range(machines.sections):
            section = f"{number:02d}"
            for domain, count in domains:
                for index in range(count):
                    path = Path(f"{folder}/train/section_{section}_{domain}_{index:04d}.wav")
                    yield Clip(path, name, section, "train", domain, "normal", (), None, year)
        for index in range(machines.supplemental):
            path = Path(f"{folder}/supplemental/section_00_{lone}_{index:04d}.wav")
            yield Clip(path, name, "00", "supplemental", "source", "normal", (), lone, year)
