"""`headrace copy`: experiments, runs, models, traces and their files from one server's stores to another's."""
