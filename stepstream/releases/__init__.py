"""Releases for people: built from a folder, published, compared, promoted."""
