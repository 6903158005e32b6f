"""Evaluation datasets: inputs with expectations and outputs, which mlflow.genai.evaluate runs an application on."""
