"""What holds for all tests."""

import signal

# A shell lets what it runs in the background ignore SIGINT, and programs inherit that: those that tests interrupt
# would not hear of it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
