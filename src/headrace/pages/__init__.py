"""Headrace's own pages of what is in the database, below /headrace/: what MLflow's UI can't answer. No script."""
