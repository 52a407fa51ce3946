"""What the pages show, one module for each page: sums in SQL, lists by pages of a key."""
