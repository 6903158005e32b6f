"""Scorers, which the UI calls judges: what is registered of an experiment. To register and to run them is stock's."""
