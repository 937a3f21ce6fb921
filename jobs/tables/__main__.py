"""`python -m jobs.tables`: the process that commits to a table."""

from jobs.tables.child import main

if __name__ == "__main__":
    main()
