"""Encodings of sections, one file each, and their registry."""
