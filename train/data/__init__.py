"""From files to samples: what is trained on, and what it means; read `labelled` and `crops` first."""
