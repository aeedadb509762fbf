"""From a window to an alert: features, distances, thresholds, bundle, score, alarm."""
