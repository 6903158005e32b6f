"""The user guide as a program: an XGBoost model of customer churn, tracked from its parameters to its use.

    make serve                                   # in one terminal
    make example                                 # in another
    MLFLOW_TRACKING_URI=http://host:5000 make example ARGS='--trees 100 --project churn --user me'

It needs nothing but a running server: the data set is made here, the same one every time.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # the plot goes to a file; no display is needed

import mlflow
import numpy as np
import pandas as pd
import shap
from matplotlib import pyplot
from mlflow.models import infer_signature
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score
from sklearn.model_selection import train_test_split
from xgboost import XGBClassifier

DEFAULT_TRACKING_URI = "http://localhost:5000"
CONTRACTS = ("month-to-month", "one year", "two years")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
    look_for_server(tracking_uri)
    mlflow.set_tracking_uri(tracking_uri)
    experiment = mlflow.set_experiment(f"{options.project}-{options.user}")

    churn = make_churn_data(options.customers)
    features, labels = churn.drop(columns="churn"), churn["churn"]
    x_train, x_test, y_train, y_test = train_test_split(
        features, labels, test_size=0.25, stratify=labels, random_state=42
    )
    started = time.monotonic()
    with mlflow.start_run(run_name=options.run_name) as run:
        model = train(x_train, y_train, x_test, y_test, trees=options.trees)
        log_quality(model, x_test, y_test)
        logged = time.monotonic()
        log_loss_per_epoch(model)
        epochs_took = time.monotonic() - logged
        log_shap_plot(model, x_test)
        model_uri = log_model(model, x_train)
    use_again(model_uri, model, x_test)

    run_url = f"{tracking_uri}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}"
    print(f"Run:     {run_url}")
    print(f"Model:   {model_uri}, loaded back: its predictions are the same")
    print(f"Time:    {time.monotonic() - started:.1f} s, {epochs_took:.2f} s of it for {options.trees} epochs' metrics")
    print('Next:    open the run\'s URL, tab "Model metrics"; run this again and compare the two runs')


def look_for_server(tracking_uri: str) -> None:
    """End with a line that says what to do where no server is: MLflow's client would try in silence, for minutes."""
    if not tracking_uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(f"{tracking_uri.rstrip('/')}/health", timeout=10):
            pass
    except urllib.error.HTTPError:
        pass  # somebody is there
    except OSError as error:
        reason = getattr(error, "reason", error)
        sys.exit(
            f"There is no MLflow server at {tracking_uri}: {reason}. Start one with `make serve`, or set "
            "MLFLOW_TRACKING_URI to the address of yours."
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train and track a churn model.")
    parser.add_argument("--project", default="churn", help="first part of the experiment's name")
    parser.add_argument("--user", default=getpass.getuser(), help="second part of it")
    parser.add_argument("--run-name", default="xgboost", help="name of the run")
    parser.add_argument("--trees", type=int, default=1000, help="n_estimators, an epoch each (1000)")
    parser.add_argument("--customers", type=int, default=4000, help="rows of the data set (4000)")
    return parser.parse_args(arguments)


def make_churn_data(customers: int, seed: int = 42) -> pd.DataFrame:
    """Customers of a telephone company: one row each, `churn` is 1 for the (about 20 %) who left.

    Customers leave sooner with a short contract, a high bill, many calls to support and a short history.
    """
    random = np.random.default_rng(seed)
    tenure = random.gamma(2.0, 14.0, customers).clip(0, 72).round()
    contract = random.choice(len(CONTRACTS), customers, p=(0.55, 0.25, 0.20))
    monthly = random.normal(65, 28, customers).clip(18, 125).round(2)
    support_calls = random.poisson(1.3, customers)
    inclination = (
        -2.3
        - 0.045 * (tenure - 28)
        - 1.1 * contract
        + 0.022 * (monthly - 65)
        + 0.55 * (support_calls - 1.3)
        + random.normal(0, 0.7, customers)
    )
    return pd.DataFrame(
        {
            "age": random.normal(46, 16, customers).clip(18, 92).round(),
            "tenure_months": tenure,
            "contract": contract.astype(float),
            "monthly_charges": monthly,
            "total_charges": (tenure * monthly * random.normal(1, 0.05, customers)).clip(0).round(2),
            "support_calls": support_calls.astype(float),
            "data_gb": random.gamma(2.5, 6.0, customers).round(1),
            "international_plan": random.binomial(1, 0.1, customers).astype(float),
            "paperless_billing": random.binomial(1, 0.6, customers).astype(float),
            "churn": random.binomial(1, 1 / (1 + np.exp(-inclination))),
        }
    )


def train(
    x_train: pd.DataFrame, y_train: pd.Series, x_test: pd.DataFrame, y_test: pd.Series, *, trees: int
) -> XGBClassifier:
    count_churn = int(y_train.sum())
    count_notchurn = len(y_train) - count_churn
    param_dist: dict[str, Any] = {
        "objective": "binary:logistic",
        "n_estimators": trees,
        "scale_pos_weight": count_notchurn / count_churn,
        "max_depth": 4,
        "min_child_weight": 6,
        "learning_rate": 0.005,
        "subsample": 0.8,
        "colsample_bytree": 0.7,
        "gamma": 0,
        "seed": 42,
    }
    mlflow.log_params(param_dist)
    model = XGBClassifier(**param_dist, eval_metric="logloss")
    model.fit(x_train, y_train, eval_set=[(x_train, y_train), (x_test, y_test)], verbose=False)
    return model


def log_quality(model: XGBClassifier, x_test: pd.DataFrame, y_test: pd.Series) -> None:
    predicted = model.predict(x_test)
    mlflow.log_metric("Recall", float(recall_score(y_test, predicted)))
    mlflow.log_metric("Precision", float(precision_score(y_test, predicted)))
    mlflow.log_metric("Balanced Accuracy", float(balanced_accuracy_score(y_test, predicted)))
    mlflow.log_metric("F1", float(f1_score(y_test, predicted)))


def log_loss_per_epoch(model: XGBClassifier) -> None:
    results = model.evals_result()
    eval_metric_result = "logloss"
    for i, metric in enumerate(results["validation_1"][eval_metric_result]):
        mlflow.log_metric("Validation LogLoss", metric, step=i)


def log_shap_plot(model: XGBClassifier, x_test: pd.DataFrame) -> None:
    """Which features move the prediction, and in which direction."""
    shap_values = shap.TreeExplainer(model).shap_values(x_test)
    shap.summary_plot(shap_values, x_test, max_display=50, show=False)
    with tempfile.TemporaryDirectory() as folder:
        fig_shap = Path(folder, "SHAP_Xgboost.png")
        pyplot.savefig(fig_shap, bbox_inches="tight")
        mlflow.log_artifact(str(fig_shap))
    pyplot.close("all")


def log_model(model: XGBClassifier, x_train: pd.DataFrame) -> str:
    """Store the model; returns the address that loads it."""
    signature = infer_signature(x_train, model.predict(x_train))
    logged: str = mlflow.xgboost.log_model(model, name="XGboost", signature=signature).model_uri
    return logged


def use_again(model_uri: str, model: XGBClassifier, x_test: pd.DataFrame) -> None:
    """Load the model back from the server and let it predict."""
    loaded = mlflow.xgboost.load_model(model_uri)
    if not np.array_equal(loaded.predict_proba(x_test), model.predict_proba(x_test)):
        raise SystemExit(f"The model {model_uri} predicts something else than the one that was trained.")


if __name__ == "__main__":
    main()
