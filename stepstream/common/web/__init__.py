"""The web stack of every HTTP server of the project: credentials, limits, checks, headers."""
