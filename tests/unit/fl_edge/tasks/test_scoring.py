from __future__ import annotations

import numpy as np
import pytest

from fl_edge.tasks.scoring import auc, macro_f1, regression_scores


def test_macro_f1_is_the_mean_over_the_classes_that_occur() -> None:
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    # Class 0: precision 1, recall 1/2. Class 1: precision 2/3, recall 1.
    assert macro_f1(labels, predicted, 3) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_auc_counts_pairs_in_order_and_ties_half() -> None:
    positive, scores = np.array([True, True, False, False]), np.array([0.9, 0.5, 0.5, 0.1])
    assert auc(positive, scores) == pytest.approx(3.5 / 4)
    assert np.isnan(auc(np.array([True, True]), np.array([0.1, 0.2])))


def test_scores_of_a_regression() -> None:
    scores = regression_scores(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 6.0]))
    assert scores == pytest.approx({"mae": 1.0, "rmse": 3**0.5, "r2": 1 - 9 / 2})
    assert np.isnan(regression_scores(np.array([2.0, 2.0]), np.array([2.0, 3.0]))["r2"])
