// SPDX-License-Identifier: GPL-2.0

//! Builds DMAR tables as firmware lays them out (specification, chapter 8).

/// Scope types.
pub(super) const ENDPOINT: u8 = 1;
pub(super) const SUB_HIERARCHY: u8 = 2;
pub(super) const IOAPIC: u8 = 3;
pub(super) const HPET: u8 = 4;
pub(super) const NAMESPACE: u8 = 5;

pub(super) const INCLUDE_PCI_ALL: u8 = 1;

/// Offset of the first structure.
pub(super) const BODY: usize = 48;

/// A device scope.
pub(super) fn scope(kind: u8, id: u8, bus: u8, path: &[(u8, u8)]) -> Vec<u8> {
    let length = u8::try_from(6 + 2 * path.len()).unwrap();
    let mut bytes = vec![kind, length, 0, 0, id, bus];
    bytes.extend(
        path.iter()
            .flat_map(|(device, function)| [*device, *function]),
    );
    bytes
}

/// Any structure: type and length in front of a body.
pub(super) fn structure(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(u16::try_from(4 + body.len()).unwrap().to_le_bytes());
    bytes.extend(body);
    bytes
}

/// A remapping unit.
pub(super) fn drhd(flags: u8, size: u8, segment: u16, base: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![flags, size];
    body.extend(segment.to_le_bytes());
    body.extend(base.to_le_bytes());
    body.extend(scopes.concat());
    structure(0, &body)
}

/// A reserved memory region.
pub(super) fn rmrr(segment: u16, base: u64, limit: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend(segment.to_le_bytes());
    body.extend(base.to_le_bytes());
    body.extend(limit.to_le_bytes());
    body.extend(scopes.concat());
    structure(1, &body)
}

/// A table with a right length and checksum.
pub(super) fn table(structures: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"DMAR....\x01.".to_vec();
    bytes.extend(b"VENDORTABLE   \x01\0\0\0TEST\x01\0\0\0");
    bytes.extend([47, 0b101]); // 48 bits; flags
    bytes.extend([0; 10]);
    assert_eq!(bytes.len(), BODY);
    bytes.extend(structures.concat());
    seal(&mut bytes);
    bytes
}

/// Sets length and checksum to what the bytes are.
pub(super) fn seal(bytes: &mut [u8]) {
    let length = u32::try_from(bytes.len()).unwrap();
    if let Some(field) = bytes.get_mut(4..8) {
        field.copy_from_slice(&length.to_le_bytes());
    }
    fix_checksum(bytes);
}

/// Sets the checksum to what the bytes are.
pub(super) fn fix_checksum(bytes: &mut [u8]) {
    if bytes.len() > 9 {
        bytes[9] = 0;
        let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[9] = sum.wrapping_neg();
    }
}

/// A table as a workstation has it: a unit for graphics, one for the rest, and everything else
/// firmware may say.
pub(super) fn sample() -> Vec<u8> {
    table(&sample_structures())
}

pub(super) fn sample_structures() -> Vec<Vec<u8>> {
    vec![
        drhd(0, 0, 0, 0xfed9_0000, &[scope(ENDPOINT, 0, 0, &[(2, 0)])]),
        // Behind a root port and a switch's upstream port, a downstream port and all below it.
        drhd(
            0,
            1,
            0,
            0xfed9_2000,
            &[
                scope(SUB_HIERARCHY, 0, 0, &[(0x1c, 0), (0, 0), (1, 0)]),
                scope(ENDPOINT, 0, 0x40, &[(3, 1)]),
            ],
        ),
        drhd(INCLUDE_PCI_ALL, 0, 1, 0xfed9_8000, &[]),
        drhd(
            INCLUDE_PCI_ALL,
            0,
            0,
            0xfed9_1000,
            &[
                scope(IOAPIC, 2, 0xf0, &[(0x1f, 7)]),
                scope(HPET, 0, 0, &[(0x1f, 6)]),
                scope(NAMESPACE, 1, 0, &[(0x15, 0)]),
                scope(0x77, 9, 9, &[(0xff, 0xff)]),
            ],
        ),
        // RHSA, ANDD, ATSR, SATC, SIDP, and a type from the future.
        structure(3, &[0; 16]),
        structure(4, b"\0\0\0\x01\\_SB.I2C0\0"),
        structure(2, &[1, 0, 0, 0]),
        structure(5, &[0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 2, 0]),
        structure(6, &[0, 0, 0, 0]),
        structure(0x1234, b"whatever it is"),
        rmrr(
            0,
            0xbdc0_0000,
            0xbfff_ffff,
            &[scope(ENDPOINT, 0, 0, &[(2, 0)])],
        ),
        rmrr(
            0,
            0x8b5a_8000,
            0x8b5a_8fff,
            &[
                scope(ENDPOINT, 0, 0, &[(0x14, 0)]),
                scope(SUB_HIERARCHY, 0, 0, &[(0x1c, 4)]),
            ],
        ),
    ]
}
