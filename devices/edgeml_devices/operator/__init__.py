"""What an operator types: commands that speak to the server."""
