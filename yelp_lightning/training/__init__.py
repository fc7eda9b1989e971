"""What a run has beside model and data: its Trainer, throughput, and what keeps it safe."""
