"""Find out, by listening and asking for a moment, who on this network has our VRID or our virtual address.

probe.py INTERFACE VIP VRID SECONDS BALANCER...

Prints "vrid ADDRESS" for every other VRRP router with this VRID (VRRP 2 and 3, sent to all or to us; RFC 5798), and
"address MAC" for every host that answers for the VIP (ARP probes, RFC 5227) and is none of the balancers. Ansible sends
it to a host that may have nothing but Python; it needs root and changes nothing.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

VRRP = 112
VRRP_GROUP = "224.0.0.18"
ARP = 0x0806
ARP_REQUEST, ARP_REPLY = 1, 2
BROADCAST = b"\xff" * 6


def advert(packet: bytes) -> tuple[str, int] | None:
    """Return source address and VRID of an IPv4 packet, None if it holds no VRRP advertisement."""
    payload = packet[(packet[0] & 0x0F) * 4 :]
    if packet[9] != VRRP or len(payload) < 8 or payload[0] not in (0x21, 0x31):
        return None
    return socket.inet_ntoa(packet[12:16]), payload[1]


def arp_probe(mac: bytes, address: str) -> bytes:
    """Return the frame that asks who has an address, without claiming one."""
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, ARP_REQUEST)
    return BROADCAST + mac + struct.pack("!H", ARP) + request + mac + bytes(4) + bytes(6) + socket.inet_aton(address)


def arp_reply(frame: bytes) -> tuple[str, str] | None:
    """Return address and MAC that a frame announces, None if it is no ARP reply."""
    if len(frame) < 42 or struct.unpack("!H", frame[20:22])[0] != ARP_REPLY:
        return None
    return socket.inet_ntoa(frame[28:32]), frame[22:28].hex(":")


def probe(interface: str, vip: str, vrid: int, seconds: float, balancers: list[str]) -> list[str]:
    """Listen and ask, and return the findings."""
    vrrp = socket.socket(socket.AF_INET, socket.SOCK_RAW, VRRP)
    vrrp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    membership = struct.pack("4s4si", socket.inet_aton(VRRP_GROUP), bytes(4), socket.if_nametoindex(interface))
    vrrp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    arp = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ARP))
    arp.bind((interface, ARP))
    mac = arp.getsockname()[4]

    speakers: set[str] = set()
    # Balancers count as themselves by their MAC: it is one of them that may have the address already.
    macs: dict[str, set[str]] = {address: set() for address in [*balancers, vip]}
    started = time.monotonic()
    ask_at = started
    while (now := time.monotonic()) < started + seconds:
        if now >= ask_at:
            for address in macs:
                arp.send(arp_probe(mac, address))
            ask_at += 0.5
        ready, _, _ = select.select([vrrp, arp], [], [], 0.1)
        if vrrp in ready and (heard := advert(vrrp.recv(2048))) and heard[1] == vrid and heard[0] not in balancers:
            speakers.add(heard[0])
        if arp in ready and (answer := arp_reply(arp.recv(2048))) and answer[0] in macs:
            macs[answer[0]].add(answer[1])
    strangers = macs[vip].difference({mac.hex(":")}, *(macs[balancer] for balancer in balancers))
    return [f"vrid {speaker}" for speaker in sorted(speakers)] + [f"address {owner}" for owner in sorted(strangers)]


if __name__ == "__main__":
    print("\n".join(probe(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])))
