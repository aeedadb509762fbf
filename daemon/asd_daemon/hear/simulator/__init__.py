"""Simulated machines, healthy and failing, in background noise: for the demo, the tests and the smoke data set.

unit.py        one physical unit and its endless sound: the face of this package
scene.py       a unit among noise, at a level, in the source or the target domain
hall.py two_microphones.py     how sound comes to a microphone in a hall; one at the machine and one far from it
rotating.py stroking.py toys.py     the seven machines         noise.py     the families of noise
machine.py     seeds, severity and what all machines share     mechanics.py the building blocks of their sound
"""

from asd_daemon.hear.simulator.unit import (
    MACHINES,
    NOISES,
    NOMINAL_DBFS,
    SHORTEST_S,
    MachineStream,
    SimulatedMachine,
    SoundStream,
    mix,
    render_noise,
    stream_noise,
)

__all__ = [
    "MACHINES",
    "NOISES",
    "NOMINAL_DBFS",
    "SHORTEST_S",
    "MachineStream",
    "SimulatedMachine",
    "SoundStream",
    "mix",
    "render_noise",
    "stream_noise",
]
