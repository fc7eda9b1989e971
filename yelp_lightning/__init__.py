"""Fine-tune a pretrained BERT on reviews with stars, measure it honestly, and use it."""

__version__ = "0.1.0"
