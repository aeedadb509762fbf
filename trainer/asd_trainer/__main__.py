"""`python -m asd_trainer` is `asd-train`."""

from asd_trainer.cli import main

if __name__ == "__main__":
    main()
