"""A bundle at work: windows → scores, the self-test, and which bundle is installed on this box."""
