"""The image's HEALTHCHECK: exit code 0 when the server in this container answers /health. No curl is needed."""

import http.client
import os
import sys

TIMEOUT_SECONDS = 4

try:
    port = int(os.environ.get("MLFLOW_PORT") or "5000")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    connection.request("GET", os.environ.get("MLFLOW_STATIC_PREFIX", "") + "/health")
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
except (OSError, ValueError, http.client.HTTPException) as error:
    sys.exit(f"/health does not answer: {error}")
if answer.status != 200:
    sys.exit(f"/health answers {answer.status}: {text}")
