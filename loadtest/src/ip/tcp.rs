//! What an IP packet says of TCP: whether its bytes were there before.

use std::collections::HashMap;

/// How far each connection of one direction has come.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// By both ports: the sequence number behind the last byte that was seen.
    next: HashMap<[u8; 4], u32>,
}

impl Streams {
    /// Takes a packet of IP version 4 into account: gives how many of its bytes of payload
    /// had been there before (0 where it is not TCP, or a fragment).
    pub(super) fn repeated(&mut self, packet: &[u8]) -> u64 {
        let Some(segment) = Segment::of(packet) else {
            return 0;
        };
        let end = segment.sequence.wrapping_add(segment.payload);
        if segment.begins {
            self.next
                .insert(segment.ports, segment.sequence.wrapping_add(1));
            return 0;
        }
        let next = self.next.entry(segment.ports).or_insert(segment.sequence);
        // Behind the last byte by less than half of all numbers: not older than it.
        let new = end.wrapping_sub(*next);
        let is_newer = new < 1 << 31;
        if is_newer {
            *next = end;
        }
        let new = if is_newer { new } else { 0 };
        u64::from(segment.payload.saturating_sub(new))
    }
}

struct Segment {
    ports: [u8; 4],
    sequence: u32,
    /// Its flag SYN.
    begins: bool,
    payload: u32,
}

impl Segment {
    fn of(packet: &[u8]) -> Option<Self> {
        const TCP: u8 = 6;
        const SYN: u8 = 2;
        let first = *packet.first()?;
        let header = usize::from(first & 0x0F) * 4;
        let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let offset = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1FFF;
        if first >> 4 != 4 || *packet.get(9)? != TCP || offset != 0 {
            return None;
        }
        let segment = packet.get(header..total)?;
        let data = usize::from(segment.get(12)? >> 4) * 4;
        Some(Self {
            ports: *segment.first_chunk()?,
            sequence: u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?),
            begins: segment.get(13)? & SYN != 0,
            payload: u32::try_from(segment.len().checked_sub(data)?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, flags: u8, sequence: u32, payload: usize) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        let total = u16::try_from(40 + payload).unwrap();
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x1B, 0x80, 0xC0, 0]);
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        packet.resize(usize::from(total), 7);
        packet
    }

    #[test]
    fn bytes_that_were_there_before_are_found_also_where_numbers_begin_again() {
        let mut streams = Streams::default();
        let start = u32::MAX - 100;
        assert_eq!(streams.repeated(&packet(6, 2, start, 0)), 0, "SYN");
        let first = start.wrapping_add(1);
        assert_eq!(streams.repeated(&packet(6, 0x10, first, 300)), 0);
        let second = first.wrapping_add(300);
        assert_eq!(streams.repeated(&packet(6, 0x10, second, 50)), 0);
        assert_eq!(streams.repeated(&packet(6, 0x10, first, 300)), 300);
        // Half of it is new, then there is a hole, then what was in the hole.
        assert_eq!(streams.repeated(&packet(6, 0x10, second, 100)), 50);
        let behind = second.wrapping_add(200);
        assert_eq!(streams.repeated(&packet(6, 0x10, behind, 10)), 0);
        assert_eq!(streams.repeated(&packet(6, 0x10, behind, 0)), 0, "an ACK");
        assert_eq!(streams.repeated(&packet(17, 0x10, first, 300)), 0, "UDP");
        // A new connection with the same ports.
        assert_eq!(streams.repeated(&packet(6, 2, 5, 0)), 0);
        assert_eq!(streams.repeated(&packet(6, 0x10, 6, 10)), 0);
        assert_eq!(streams.repeated(&packet(6, 0x10, 6, 10)), 10);
        assert_eq!(streams.repeated(&[0x45, 0, 0]), 0, "no whole header");
    }
}
