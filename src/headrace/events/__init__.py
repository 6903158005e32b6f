"""Events: a run that ends, a metric that passes a threshold, a new model version or alias, told to who asked for it.

request -> notes.py (a row a subscription, before the request is answered) -> delivery.py (again until it is taken)

`store.py` has the tables, `subscriptions.py` says what can be asked for, `formats.py` how it is told, `addresses.py`
where nothing is ever sent.
"""
