// The assistant is off on this server: it does not open by itself on the first visit.
try {
  localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
  localStorage.removeItem("mlflow.assistant.panelOpen_v1");
} catch {}
