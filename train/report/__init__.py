"""What a run leaves for people to look at; read `train.report.make` first."""
