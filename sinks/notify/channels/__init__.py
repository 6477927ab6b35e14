"""The project's own channels, one module each. Every module here is imported and registers its channel."""
