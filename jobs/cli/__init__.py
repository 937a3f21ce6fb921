"""The command line. Heavy modules (Celery, pyarrow, boto3) are imported by the commands that need them."""
