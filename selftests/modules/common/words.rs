// SPDX-License-Identifier: GPL-2.0

//! Command lines, word by word, and answers.

use core::str::SplitAsciiWhitespace;
use iommu::consumer::Access;
use kernel::{
    dma::DataDirection,
    fmt,
    prelude::*,
    str::CString, //
};

/// The words that are left of a line.
pub(crate) struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    pub(crate) fn new(line: &'a str) -> Self {
        Self(line.split_ascii_whitespace())
    }

    pub(crate) fn word(&mut self) -> Result<&'a str> {
        self.0.next().ok_or(EINVAL)
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        parse(self.word()?)
    }

    pub(crate) fn number_or(&mut self, default: u64) -> Result<u64> {
        self.0.next().map_or(Ok(default), parse)
    }

    /// Whether `flag` is there.
    pub(crate) fn flag(&mut self, flag: &str) -> Result<bool> {
        match self.0.next() {
            None => Ok(false),
            Some(word) if word == flag => Ok(true),
            Some(_) => Err(EINVAL),
        }
    }

    pub(crate) fn direction(&mut self) -> Result<DataDirection> {
        match self.word()? {
            "to" => Ok(DataDirection::ToDevice),
            "from" => Ok(DataDirection::FromDevice),
            "both" => Ok(DataDirection::Bidirectional),
            _ => Err(EINVAL),
        }
    }

    pub(crate) fn access(&mut self) -> Result<Access> {
        match self.word()? {
            "r" => Ok(Access::Read),
            "w" => Ok(Access::Write),
            "rw" => Ok(Access::ReadWrite),
            _ => Err(EINVAL),
        }
    }

    /// Calls `f` with each word that is left.
    #[allow(dead_code, reason = "not all modules have commands with many words")]
    pub(crate) fn each(self, f: impl FnMut(&'a str) -> Result) -> Result {
        let mut words = self.0;
        words.try_for_each(f)
    }

    pub(crate) fn end(&mut self) -> Result {
        self.0.next().map_or(Ok(()), |_| Err(E2BIG))
    }
}

fn parse(word: &str) -> Result<u64> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    number.map_err(|_| EINVAL)
}

pub(crate) fn done() -> Result<CString> {
    answer(fmt!("done"))
}

pub(crate) fn answer(text: fmt::Arguments<'_>) -> Result<CString> {
    CString::try_from_fmt(text)
}
