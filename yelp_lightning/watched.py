"""A `fit` that ends with the study that started it: `python -m yelp_lightning.watched fit ...`."""

import os
import threading

from yelp_lightning.__main__ import main


def _end_with_the_study() -> None:
    # Standard input is a pipe whose other end the study holds and never writes to: it ends when the study does, even by
    # SIGKILL. The other processes of a DDP run inherit it.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    main()
