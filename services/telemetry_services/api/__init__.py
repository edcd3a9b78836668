"""The REST API over a store; what is posted goes through the broker."""
