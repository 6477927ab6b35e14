"""The web stack of every HTTP server in Stepstream: credentials, limits, checks and headers."""
