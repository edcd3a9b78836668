"""Code generated from protos/telemetry_broker/v1 by `make proto`; edit the protos instead."""
