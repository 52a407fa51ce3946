"""The calls of the HTTP interface: each module one part of it, and what its bodies look like."""
