// The assistant is off on this server: it does not open by itself on the first visit, and its button is not shown.
try {
  localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
  localStorage.removeItem("mlflow.assistant.panelOpen_v1");
} catch {}
const hidden = new CSSStyleSheet();
hidden.replaceSync("[data-assistant-ui] { display: none !important }");
document.adoptedStyleSheets = [...document.adoptedStyleSheets, hidden];
