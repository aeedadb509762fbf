"""What the state folder keeps: alerts that wait, scores, clips, the memory of each machine."""
