"""Where sound comes from: microphone in a process of its own, recordings, a command, a simulated machine."""
