"""The resources: one noun of the API each, a thin skin on the service layer."""
