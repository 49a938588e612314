"""`tlbench` as a process that file permissions hold for, even where root starts it.

python tests/support/unprivileged.py ARGUMENT...

Root's privileges are dropped, not root itself: another user might not be allowed to
enter the environment that tlbench is installed in.
"""

import ctypes
import os

from tlbench.cli import main

CAPABILITY_VERSION_3 = 0x20080522
"""https://man7.org/linux/man-pages/man2/capset.2.html"""


def drop_privileges() -> None:
    """Give up every capability, such as that of writing what is read-only."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)  # 0: of this process
    none = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    if os.getuid() == 0:
        drop_privileges()
    main()
