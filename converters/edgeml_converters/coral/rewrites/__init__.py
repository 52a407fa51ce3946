"""Changes to a TFLite graph: the Edge TPU compiler maps more of it, and the results stay the same."""
