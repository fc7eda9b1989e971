"""The report of a single test: what `test` leaves beside its metrics."""

from pathlib import Path
from typing import Any

from yelp_lightning.report.curves import read_curve
from yelp_lightning.report.page import write_report
from yelp_lightning.report.rows import Tested, TestedRows

REPORT = "report.html"


def report_test(folder: Path, checkpoint_file: Path, model: Any, datamodule: Any) -> Path:
    """Write ``report.html``.

    Args:
        folder: Where to.
        checkpoint_file: What was tested; its folder has the learning curves.
        model: The ``StarClassifier``, after its test.
        datamodule: The ``ReviewDataModule`` that it was tested on.

    Returns:
        The file.
    """
    measured = model.measured["test"]
    rows = TestedRows.of(datamodule, model.hparams["ordered"], measured.rows)
    curve = read_curve(checkpoint_file.parent, checkpoint_file.parent.name)
    title = f"{checkpoint_file} on {len(rows.labels):,} test rows of {datamodule.hparams['source']}"
    seen = datamodule.reviews.summary["test"]["seen_in_training"]
    remarks = [f"The model was trained or chosen on the texts of {seen:,} of the test rows, which flatters it."]
    write_report(folder / REPORT, title, rows, [Tested("tuned", measured)], [curve], remarks=remarks if seen else ())
    return folder / REPORT
