"""Parity: tasks that Transformers 5 has no pipeline for, against the pipelines of Transformers 4. `make parity`."""
