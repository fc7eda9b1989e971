"""Hyperparameter search: a study of `fit` runs."""
