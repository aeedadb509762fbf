"""From a window to an alert: bundle, log-mel, neighbours, score, alarm."""
