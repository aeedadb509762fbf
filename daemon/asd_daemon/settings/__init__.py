"""The configuration: its keys, its file, the sample, and the plan that is made from it and the command line."""
