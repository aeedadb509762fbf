"""The separation stage: mixtures, losses, the separator's training, separated and synthetic clips."""
