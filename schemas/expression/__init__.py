"""A subset of CEL: conditions over variables that the caller defines."""
