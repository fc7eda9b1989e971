"""The model that is trained: classifier, its optimizer groups and schedule, its metrics."""
