"""What is measured in a trial: time, memory, operations and the device's state."""
