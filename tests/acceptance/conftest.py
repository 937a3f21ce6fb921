"""What pytest leaves alone here: the files of the outside developer, which run in a copy of the packages."""

collect_ignore = ["outside_task"]
