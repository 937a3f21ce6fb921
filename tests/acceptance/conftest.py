"""What pytest leaves alone here: the files of outside developers, which run in a copy of the packages."""

collect_ignore = ["deadly_task", "outside_task"]
