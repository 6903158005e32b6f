"""What must be equal, and the few things that deliberately are not."""

from __future__ import annotations

from tests.differential.deliberate import HALF_READ, UNDERSTOOD
from tests.differential.harness import NATIVE, Answer, Case, Transcript

# Where Headrace deliberately does not do what stock does: the case -> why.
DELIBERATE = {
    "input: workspace default": "Without workspaces stock refuses even the default one, where all its rows are.",
}


def _are_refusals(expected: Answer, found: Answer) -> bool:
    """Whether both refuse a bad request; Headrace may name the fault more plainly."""
    return 400 <= expected.status < 500 and 400 <= found.status < 500


def _leaks(answer: Answer) -> bool:
    """Whether stock refuses a request in its database's words."""
    text = str(answer.body)
    return 400 <= answer.status < 500 and ("[SQL: " in text or "psycopg2" in text or "sqlite3." in text)


def compare(case: Case, stock: Transcript, headrace: Transcript) -> None:
    """AssertionError where Headrace's answers or rows differ from stock's."""
    if case.name in DELIBERATE:
        assert [answer.status for answer in headrace.answers] == [200] * len(case.requests), DELIBERATE[case.name]
        return
    half_done = False
    for request, expected, found in zip(case.requests, stock.answers, headrace.answers, strict=True):
        if case.name in UNDERSTOOD and found.status == 200:
            return
        if _is_failure(expected):
            assert_refused(found, expected)
            continue
        if case.name in HALF_READ and expected.status == 200 and found.status == 400:
            return
        if _are_refusals(expected, found) and (case.by == "any" or _leaks(expected)):
            half_done = True  # of a batch that stock refuses, or its database, a part may be done; here nothing is
            continue
        where = f"{str(request)[:1000]}\nstock:    {str(expected)[:1000]}\nHeadrace: {str(found)[:1000]}"
        assert found.status == expected.status, where
        assert found.body == expected.body, where
        assert found.headers == expected.headers, where
    half_done = half_done or any(map(_is_failure, stock.answers))
    for table, rows in stock.rows.items():
        assert headrace.rows[table] == rows or (half_done and set(headrace.rows[table]) <= set(rows)), table
    assert_answered_by(case, headrace)


def _is_failure(answer: Answer) -> bool:
    return answer.status >= 500


def assert_refused(found: Answer, expected: Answer) -> None:
    """Where stock answers 500 Headrace says what is wrong with the request, in MLflow's error shape; by a 501, that
    this server is started without what it asks for."""
    assert 400 <= found.status < 500 or found.status == 501, f"stock:    {expected}\nHeadrace: {found}"
    assert {"error_code", "message"} <= set(found.body), found
    assert "Traceback" not in found.body["message"], found


def assert_answered_by(case: Case, headrace: Transcript) -> None:
    answers = zip(case.requests, headrace.answers, strict=True)
    if case.by == "native":
        passed_through = [r for r, a in answers if r.endpoint in NATIVE and a.answered_by != "native"]
        assert not passed_through, f"passed through to stock: {passed_through}"[:2000]
