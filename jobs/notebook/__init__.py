"""What the client shows of a job in a notebook or a terminal: the job, its progress, its first rows."""
