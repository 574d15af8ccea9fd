"""Services, endpoints and policies to xDS resources; the ADS server; what each proxy has acknowledged."""
