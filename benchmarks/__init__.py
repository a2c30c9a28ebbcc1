"""What the shim costs, measured beside others: run `python -m benchmarks.rpc` in a checkout."""
