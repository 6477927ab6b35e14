"""What is broken, how often, and over which cluster."""
