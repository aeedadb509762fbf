"""How high normal windows score, and above which score a window is anomalous."""
