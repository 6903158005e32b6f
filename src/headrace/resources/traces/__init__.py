"""Traces: OTLP in, the rows that stock's log_spans leaves.

`otlp.py` makes spans of a request's bytes, `span_rows.py` makes rows of spans, `translation/` knows the conventions of
others, `costs.py` the prices, `token_sums.py` the sums along a trace's tree, `sql.py` the statements. None of it knows
HTTP or a database.
"""
