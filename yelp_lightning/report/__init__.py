"""The report: what a tested model reads right and wrong, and where, as one page."""
