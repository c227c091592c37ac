"""skysift: sift spectroscopic surveys for the strange."""
