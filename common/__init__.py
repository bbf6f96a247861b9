"""What several parts need and none of them owns: memory limits, faults in one line, valid text."""
