"""Two that go on talking: what runs in two containers while something happens to weft.

`chatter.py echo` answers every datagram at port 7007. `chatter.py ask ADDRESS` ends with 0 if it is answered there.
`chatter.py talk ADDRESS` asks for ever, and writes "+" for each answer, "-" for each that does not come in 2 s.
"""

import socket
import sys
import time

PORT = 7007
PAUSE = 0.02  # seconds between two datagrams


def echo() -> None:
    """Answer for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("", PORT))
        while True:
            said, sender = ear.recvfrom(100)
            ear.sendto(said, sender)


def ask(address: str) -> bool:
    """Ask until there is an answer, five times at most."""
    with _mouth(address) as mouth:
        return any(answered(mouth, b"%d" % number) for number in range(5))


def talk(address: str) -> None:
    """Ask for ever."""
    with _mouth(address) as mouth:
        number = 0
        while True:
            number += 1
            sys.stdout.write("+" if answered(mouth, b"%d" % number) else "-")
            sys.stdout.flush()
            time.sleep(PAUSE)


def _mouth(address: str) -> socket.socket:
    mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mouth.settimeout(2)
    mouth.connect((address, PORT))
    return mouth


def answered(mouth: socket.socket, question: bytes) -> bool:
    """Ask once."""
    try:
        mouth.send(question)
        while mouth.recv(100) != question:
            pass
    except OSError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo()
    if sys.argv[1] == "ask":
        sys.exit(0 if ask(sys.argv[2]) else 1)
    talk(sys.argv[2])
