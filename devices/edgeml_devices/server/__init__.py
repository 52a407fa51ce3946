"""The server: devices, releases and rollouts in a database, spoken to over HTTP."""
