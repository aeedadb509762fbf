"""`python -m asd_trainer` is `asd-train`."""

from asd_trainer.cli.program import main

if __name__ == "__main__":
    main()
