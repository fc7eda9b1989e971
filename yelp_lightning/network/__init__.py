"""The network: pretrained encoder, pooling and head, adapters, and the dropout of processors."""
