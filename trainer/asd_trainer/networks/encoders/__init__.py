"""Encoders of several families behind one face: sound in, tokens with a time and a frequency axis out, released weights by file."""
