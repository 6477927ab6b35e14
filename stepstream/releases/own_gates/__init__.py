"""The gates that every installation has."""
