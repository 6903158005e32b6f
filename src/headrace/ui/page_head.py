"""What the head of the UI's page gets here: what is off is not shown, which the UI itself does for no answer."""

from __future__ import annotations

from pathlib import Path

from headrace.settings import Settings

# By setting: what in MLflow's UI leads to a feature, and is out of sight while it is off. The menus of the AI gateway,
# of judges and the playground are not among them: server-info says to the UI that they are off.
OFFERS = {
    "enable_assistant": (
        "[data-assistant-ui]",
        '[data-component-id$=".analyze-trace"]',
        '[role=tab][id$="-trigger-assistant"]',
    ),
    "enable_ai_gateway": (
        'a[href*="#/settings/llm-connections"]',
        '[data-component-id="mlflow.gateway.api-keys.create-button"]',
        '[data-component-id="mlflow.traces-v4.actions.run-judges"]',
        '[data-component-id="mlflow.genai-traces-table.run-judges"]',
        '[data-component-id="mlflow.model-trace-explorer.run-judge"]',
    ),
    "enable_webhooks": (
        'a[href*="#/settings/webhooks"]',
        '[data-component-id="mlflow.settings.webhooks.create-button"]',
    ),
}
# What stock alone answers, and is out of sight where it never starts.
OFFERS_OF_STOCK = (
    'a[href*="#/mcp-registry"]',
    'a[href*="/review-queue"]',
    '[data-component-id="mlflow.traces-v4.actions.flag-for-review"]',
    '[data-component-id="mlflow.evaluations_review.modal.flag_for_review"]',
    '[data-component-id="mlflow.experiment-review-queue.add-to-queue"]',
)
# "MLflow collects usage data": not here (ui/stub_answers.py).
NOT_SO = ('[data-component-id="mlflow.home.telemetry-alert"]',)


def page_head(settings: Settings) -> bytes:
    """Lines for the head, without an address to ask: they cost no request."""
    off = [selector for name, selectors in OFFERS.items() if not getattr(settings, name) for selector in selectors]
    if settings.stock == "never":
        off += OFFERS_OF_STOCK
    off += NOT_SO
    # `:not` of an id makes it stronger than the UI's own rules for buttons, which are !important, too
    lines = [f"<style>:is({', '.join(off)}):not(#none) {{ display: none !important }}</style>"]
    if not settings.enable_assistant:
        lines.append(_script("without_assistant.js"))
    if not settings.disable_security_middleware:  # without it there is no policy that forbids the video
        lines.append(_script("without_video.js"))
    return "".join(lines).encode()


def _script(name: str) -> str:
    return f"<script>\n{Path(__file__).with_name(name).read_text()}</script>"
