"""The bundle on disk: manifest, signature, files, and its models as running sessions."""
