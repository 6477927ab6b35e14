"""The project's own channels. Every module here is imported and registers one channel."""
