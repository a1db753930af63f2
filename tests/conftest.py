"""What every test can count on, however the tests were started."""

import signal

# A shell starts background jobs with interrupts ignored, and every process below inherits that:
# no test could interrupt anything. From here on interrupts work, here and in what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
