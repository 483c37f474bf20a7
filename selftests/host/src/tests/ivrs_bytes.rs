// SPDX-License-Identifier: GPL-2.0

//! Builds IVRS tables as firmware lays them out (AMD's specification 48882, section 5.2).

use super::dmar_bytes::seal;

/// Offset of the first block.
pub(super) const BODY: usize = 48;

/// A device entry of four bytes.
pub(super) fn short(kind: u8, id: u16, settings: u8) -> Vec<u8> {
    let [low, high] = id.to_le_bytes();
    vec![kind, low, high, settings]
}

/// A device entry of eight bytes: with a handle, a second id, and a variety.
pub(super) fn long(kind: u8, id: u16, settings: u8, rest: (u8, u16, u8)) -> Vec<u8> {
    let (handle, other, variety) = rest;
    let mut bytes = short(kind, id, settings);
    let [low, high] = other.to_le_bytes();
    bytes.extend([handle, low, high, variety]);
    bytes
}

/// A device entry with the name of an ACPI device.
pub(super) fn named(id: u16, uid: &[u8]) -> Vec<u8> {
    let mut bytes = short(0xf0, id, 0);
    bytes.extend(b"AMDI0020");
    bytes.extend([0; 8]);
    bytes.extend([2, u8::try_from(uid.len()).unwrap()]);
    bytes.extend(uid);
    bytes
}

/// An IOMMU.
pub(super) struct Ivhd {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) function: u16,
    pub(super) base: u64,
    pub(super) segment: u16,
    pub(super) attributes: u32,
    pub(super) entries: Vec<u8>,
}

impl Ivhd {
    /// One of type 10h in segment 0, whose function is 00:00.2.
    pub(super) fn new(base: u64, entries: &[Vec<u8>]) -> Self {
        Self {
            kind: 0x10,
            flags: 0,
            function: 2,
            base,
            segment: 0,
            attributes: 0,
            entries: entries.concat(),
        }
    }

    /// The block.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut body = self.function.to_le_bytes().to_vec();
        body.extend(0x40u16.to_le_bytes());
        body.extend(self.base.to_le_bytes());
        body.extend(self.segment.to_le_bytes());
        body.extend([0; 2]);
        body.extend(self.attributes.to_le_bytes());
        if self.kind != 0x10 {
            body.extend(0x29d3u64.to_le_bytes());
            body.extend([0; 8]);
        }
        body.extend(&self.entries);
        block(self.kind, self.flags, &body)
    }
}

/// A memory range: type, flags, two ids, start and length.
pub(super) fn ivmd(kind: u8, flags: u8, ids: (u16, u16), start: u64, length: u64) -> Vec<u8> {
    let mut body = ids.0.to_le_bytes().to_vec();
    body.extend(ids.1.to_le_bytes());
    body.extend([0; 8]);
    body.extend(start.to_le_bytes());
    body.extend(length.to_le_bytes());
    block(kind, flags, &body)
}

/// Any block: type, flags and length in front of a body.
pub(super) fn block(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, flags];
    bytes.extend(u16::try_from(4 + body.len()).unwrap().to_le_bytes());
    bytes.extend(body);
    bytes
}

/// A table with a right length and checksum.
pub(super) fn table(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"IVRS....\x02.".to_vec();
    bytes.extend(b"VENDORTABLE   \x01\0\0\0TEST\x01\0\0\0");
    bytes.extend(0x0020_3040u32.to_le_bytes());
    bytes.extend([0; 8]);
    assert_eq!(bytes.len(), BODY);
    bytes.extend(blocks.concat());
    seal(&mut bytes);
    bytes
}

/// What QEMU 11.1 gives a machine with two root ports, a disk below each, and a test device.
pub(super) const QEMU: &[u8] = &[
    0x49, 0x56, 0x52, 0x53, 0xe0, 0x00, 0x00, 0x00, 0x01, 0x88, 0x42, 0x4f, 0x43, 0x48, 0x53, 0x20,
    0x42, 0x58, 0x50, 0x43, 0x20, 0x20, 0x20, 0x20, 0x01, 0x00, 0x00, 0x00, 0x42, 0x58, 0x50, 0x43,
    0x01, 0x00, 0x00, 0x00, 0x01, 0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x10, 0xd1, 0x50, 0x00, 0x08, 0x00, 0x40, 0x00, 0x00, 0x00, 0xd8, 0xfe, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x44, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00, 0x00,
    0x02, 0x10, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x04, 0xff, 0x01, 0x00, 0x02, 0x18, 0x00, 0x00,
    0x03, 0x00, 0x02, 0x00, 0x04, 0xff, 0x02, 0x00, 0x02, 0x20, 0x00, 0x00, 0x02, 0xf8, 0x00, 0x00,
    0x02, 0xfa, 0x00, 0x00, 0x02, 0xfb, 0x00, 0x00, 0x48, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x00, 0x01,
    0x11, 0x11, 0x60, 0x00, 0x08, 0x00, 0x40, 0x00, 0x00, 0x00, 0xd8, 0xfe, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xd3, 0x29, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00, 0x00,
    0x02, 0x10, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x04, 0xff, 0x01, 0x00, 0x02, 0x18, 0x00, 0x00,
    0x03, 0x00, 0x02, 0x00, 0x04, 0xff, 0x02, 0x00, 0x02, 0x20, 0x00, 0x00, 0x02, 0xf8, 0x00, 0x00,
    0x02, 0xfa, 0x00, 0x00, 0x02, 0xfb, 0x00, 0x00, 0x48, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x00, 0x01,
];
