"""Nightshift in other people's schedulers, by the HTTP API: each module needs the program that it is named after."""
