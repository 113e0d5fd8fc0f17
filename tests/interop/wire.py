"""Runs a command in a network of its own, with one wire to ours and nothing else.

    python wire.py NAME NEAR FAR COMMAND…

The wire ends at address NEAR here and at FAR there; what is there reaches NEAR and no further. Not by a pair of veth
links, which not every kernel has: two tun links and a process between them, which ends with the command.
"""

import ctypes
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
NEW_NET = 0x40000000
PR_SET_PDEATHSIG = 1


def end_of_wire(name, own, other):
    """A link with that address, as a file of its packets."""
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    for command in (f"address add {own} peer {other} dev {name}", f"link set {name} up"):
        subprocess.run(["ip", *command.split()], check=True)
    return end


def carry(ends):
    other = dict(zip(ends, reversed(ends)))
    while True:
        for end in select.select(ends, [], [])[0]:
            try:
                os.write(other[end], os.read(end, 65536))
            except OSError:
                pass  # the other end is not up: the packet is lost


def main():
    name, near, far, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    ends = [end_of_wire(name, near, far)]
    if libc.unshare(NEW_NET) != 0:
        sys.exit(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    ends.append(end_of_wire(name, far, near))
    subprocess.run(["ip", "route", "add", "default", "dev", name], check=True)
    parent = os.getpid()
    if os.fork() == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            carry(ends)
        os._exit(0)
    for end in ends:
        os.close(end)
    os.execvp(command[0], command)


main()
