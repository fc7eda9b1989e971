"""What came out: tables of metrics, and models compared on the same test rows."""
