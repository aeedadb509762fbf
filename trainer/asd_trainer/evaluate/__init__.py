"""What a run is worth: scores of test clips, AUC and the official score, thresholds, submissions."""
