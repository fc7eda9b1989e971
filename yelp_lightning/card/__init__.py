"""The data card: what the data are, before anything is trained on them."""
