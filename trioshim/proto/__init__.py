"""The messages of the wire: `scripts/generate_protos.py` makes them from `protos/`."""
