"""How anything is trained: the loop, checkpoints, marks of finished stages, processes, progress."""
