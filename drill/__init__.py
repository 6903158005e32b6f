"""`make drill`: real servers are killed, cut off and overloaded while clients write; what was acknowledged is counted.

A drill is a function of a Field (drill.field) that returns an Outcome (drill.outcome); drill.__main__ lists them. They
use the tests' own PostgreSQL, servers and proxies.
"""
