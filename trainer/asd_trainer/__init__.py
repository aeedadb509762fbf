"""The trainer: learns what machines sound like when they are well. Torch lives here; the steps of listening are imported from asd_daemon."""
