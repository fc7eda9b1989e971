"""From any review table to padded batches: reviews, splits, tokens, batching, datamodule."""
