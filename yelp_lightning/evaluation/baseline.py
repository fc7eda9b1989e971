"""The cheap baseline: TF-IDF and logistic regression, trained on the rows that a run was trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Inverse strength of the regularisation; the one with the smallest log-loss on validation rows is taken.
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
# Words and pairs of words; more than this many help little and cost memory.
FEATURES = 200_000
# Reviews to train on: minutes of a core; more change little.
ROWS = 50_000
Labels = npt.NDArray[np.int64]


def baseline(
    train: tuple[Sequence[str], Labels], val: tuple[Sequence[str], Labels], texts: Sequence[str], classes: int
) -> npt.NDArray[np.float64]:
    """Probabilities by logistic regression over words and pairs of words.

    Args:
        train: Texts and their labels ``(n,)``, 0..C-1, to train on.
        val: The same to choose the regularisation on.
        texts: What is to be read, ``m`` texts.
        classes: Classes ``C``; one that no training row has gets a probability of 0.

    Returns:
        ``(m, C)``, rows sum to 1.

    Raises:
        ValueError: If the training rows have one class alone, or no words.

    Source:
        scikit-learn's ``TfidfVectorizer`` and ``LogisticRegression``.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    few = len(train[0]) < 100
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1 if few else 2, max_features=FEATURES)
    features = words.fit_transform(train[0])
    measured = words.transform(val[0])
    best: Any = None
    smallest = np.inf
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(features, train[1])
        loss = log_loss(val[1], _spread(model, measured, classes), labels=range(classes))
        if loss < smallest:
            best, smallest = model, loss
    return _spread(best, words.transform(texts), classes)


def _spread(model: Any, features: Any, classes: int) -> npt.NDArray[np.float64]:
    """Probabilities of all classes, where the model knows those of the training rows alone."""
    probabilities = np.zeros((features.shape[0], classes))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities
