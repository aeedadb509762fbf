"""The networks: EAT, embedder, separator, decoder, released weights, and what each costs."""
