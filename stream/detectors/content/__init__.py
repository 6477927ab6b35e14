"""Detectors that read what steps say. Each looks at the first part of an ended step's contents and keeps little of it."""
