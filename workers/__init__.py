"""Workers: the only package with torch. The Celery application, the shard runner, and a handler a task."""
