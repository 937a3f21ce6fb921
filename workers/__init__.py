"""The workers: the only package with torch. It has the Celery application, the shard runner and a handler per task."""
