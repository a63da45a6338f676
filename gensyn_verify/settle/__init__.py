"""Money and disputes on a chain (docs/settlement.md)."""
