"""The trainer: learns what machines sound like when they are well. Torch lives here; listening itself is imported from asd_daemon."""
