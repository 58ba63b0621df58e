"""Sends a run's numbers to other programs while it goes on: TensorBoard, Prometheus, MLflow.

==================  ================================================================================
``trackers``        what a tracker is; all of a run's trackers, whose failures never disturb the run
``options``         the options of the command line that choose a run's trackers
``tensorboard``     event files in the run directory (``event_file``: their format)
``prometheus``      metrics to be scraped at ``--metrics-port``
``mlflow``          a run at an MLflow server (``pip install 'fl-mqtt[mlflow]'``)
==================  ================================================================================
"""
