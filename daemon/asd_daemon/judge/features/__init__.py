"""A window → spectra, log-mel and the views of it that need no training."""
