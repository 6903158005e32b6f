"""Workspaces themselves: list, create, get, update, delete. What a request may see of one is api/workspaces.py's."""
