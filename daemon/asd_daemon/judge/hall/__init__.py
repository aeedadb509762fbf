"""A second microphone, far from the machine: what it says of the hall, taken out of what the near one hears."""
