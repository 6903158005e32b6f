"""What must be equal, and the few things that deliberately are not."""

from __future__ import annotations

from tests.differential.harness import NATIVE, Answer, Case, Transcript

# Stock's 500 that says nothing bad of the request: the server has no workspaces.
FEATURE_DISABLED = "FEATURE_DISABLED"
# Where Headrace deliberately does not do what stock does: the case -> why.
DELIBERATE = {
    "input: workspace default": "Without workspaces stock refuses even the default one, where all its rows are.",
}


def compare(case: Case, stock: Transcript, headrace: Transcript) -> None:
    """AssertionError where Headrace's answers or rows differ from stock's."""
    if case.name in DELIBERATE:
        assert [answer.status for answer in headrace.answers] == [200] * len(case.requests), DELIBERATE[case.name]
        return
    for request, expected, found in zip(case.requests, stock.answers, headrace.answers, strict=True):
        if _is_failure(expected):
            assert_refused(found, expected)
            continue
        where = f"{str(request)[:1000]}\nstock:    {str(expected)[:1000]}\nHeadrace: {str(found)[:1000]}"
        assert found.status == expected.status, where
        assert found.body == expected.body, where
        assert found.headers == expected.headers, where
    for table, rows in stock.rows.items():
        assert headrace.rows[table] == rows, table
    assert_answered_by(case, headrace)


def _is_failure(answer: Answer) -> bool:
    said = answer.body.get("error_code") if isinstance(answer.body, dict) else None
    return answer.status >= 500 and said != FEATURE_DISABLED


def assert_refused(found: Answer, expected: Answer) -> None:
    """Where stock answers 500 Headrace says what is wrong with the request, in MLflow's error shape."""
    assert 400 <= found.status < 500, f"stock:    {expected}\nHeadrace: {found}"
    assert set(found.body) == {"error_code", "message"}, found
    assert "Traceback" not in found.body["message"], found


def assert_answered_by(case: Case, headrace: Transcript) -> None:
    answers = zip(case.requests, headrace.answers, strict=True)
    if case.by == "native":
        passed_through = [r for r, a in answers if r.endpoint in NATIVE and a.answered_by != "native"]
        assert not passed_through, f"passed through to stock: {passed_through}"[:2000]
    if case.by == "stock":
        assert headrace.answers[-1].answered_by == "stock"
