"""Generated from the contracts in `protos/` by `make proto`; changed there, never here."""
