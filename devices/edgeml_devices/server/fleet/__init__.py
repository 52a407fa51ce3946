"""What is known of devices, and what they are to run."""
