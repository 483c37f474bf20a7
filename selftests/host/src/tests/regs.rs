// SPDX-License-Identifier: GPL-2.0

use crate::regs::{self, fsts, gcmd, gsts, iqercd, ver};

#[test]
fn registers_do_not_overlap() {
    let registers = [
        (regs::VER, 4),
        (regs::CAP, 8),
        (regs::ECAP, 8),
        (regs::GCMD, 4),
        (regs::GSTS, 4),
        (regs::RTADDR, 8),
        (regs::CCMD, 8),
        (regs::FSTS, 4),
        (regs::FECTL, 4),
        (regs::FEDATA, 4),
        (regs::FEADDR, 4),
        (regs::FEUADDR, 4),
        (regs::PMEN, 4),
        (regs::PLMBASE, 4),
        (regs::PLMLIMIT, 4),
        (regs::PHMBASE, 8),
        (regs::PHMLIMIT, 8),
        (regs::IQH, 8),
        (regs::IQT, 8),
        (regs::IQA, 8),
        (regs::ICS, 4),
        (regs::IECTL, 4),
        (regs::IEDATA, 4),
        (regs::IEADDR, 4),
        (regs::IEUADDR, 4),
        (regs::IQERCD, 8),
        (regs::IRTA, 8),
        (0xc0, 0),
    ];
    for pair in registers.windows(2) {
        let [(offset, size), (next, _)] = pair else {
            unreachable!()
        };
        assert!(offset + size <= *next, "{offset:#x} and {next:#x}");
        assert_eq!(offset % size, 0, "{offset:#x}");
    }
}

#[test]
fn a_command_changes_one_bit_and_repeats_no_one_time_operation() {
    let running = gsts::TES | gsts::RTPS | gsts::FLS | gsts::WBFS | gsts::QIES | gsts::IRTPS;
    assert_eq!(
        gcmd::set(running, gcmd::WBF),
        gcmd::TE | gcmd::QIE | gcmd::WBF
    );
    assert_eq!(gcmd::set(gsts::RTPS, gcmd::TE), gcmd::TE);
    assert_eq!(gcmd::clear(running, gcmd::TE), gcmd::QIE);
    assert_eq!(gcmd::set(u32::MAX, 0), 0x96ff_ffff & 0xff80_0000);
    // Each status bit answers the command bit in its place.
    for (command, status) in [
        (gcmd::TE, gsts::TES),
        (gcmd::SRTP, gsts::RTPS),
        (gcmd::SFL, gsts::FLS),
        (gcmd::EAFL, gsts::AFLS),
        (gcmd::WBF, gsts::WBFS),
        (gcmd::QIE, gsts::QIES),
        (gcmd::IRE, gsts::IRES),
        (gcmd::SIRTP, gsts::IRTPS),
        (gcmd::CFI, gsts::CFIS),
    ] {
        assert_eq!(command, status);
    }
}

#[test]
fn fields_are_where_the_specification_says() {
    assert_eq!((ver::major(0x54), ver::minor(0x54)), (5, 4));
    assert_eq!(fsts::fri(0x0001_2302), 0x23);
    assert_eq!(fsts::QUEUE_ERRORS, 0x70);
    let record = 0x1234_5678_0000_0009;
    assert_eq!(
        (
            iqercd::icesid(record),
            iqercd::itesid(record),
            iqercd::iqei(record)
        ),
        (0x1234, 0x5678, 9)
    );
    assert_eq!(
        (regs::IVA_FROM_IRO, regs::IOTLB_FROM_IRO, regs::FRCD_STRIDE),
        (0, 8, 16)
    );
}
