"""Data sets, the harness that measures accuracy through the nodes' own code, and reports."""
