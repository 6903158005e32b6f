"""`headrace gc` and --gc-after: what was deleted goes for good, rows and files."""
