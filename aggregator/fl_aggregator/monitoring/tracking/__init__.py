"""What other programs are told of a run as it goes: TensorBoard, Prometheus, MLflow.

==================  ================================================================================
``trackers``        what a tracker is; all of them together, who never disturb the run
``options``         on the command line; which trackers a run has
``tensorboard``     event files in the run's directory (``event_file``: what they look like)
``prometheus``      metrics to be scraped at ``--metrics-port``
``mlflow``          a run at an MLflow server (``pip install 'fl-mqtt[mlflow]'``)
==================  ================================================================================
"""
