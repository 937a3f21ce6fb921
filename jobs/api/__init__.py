"""The HTTP API: everything that the command line can do, for many users."""
