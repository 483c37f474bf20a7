// SPDX-License-Identifier: GPL-2.0

//! Writes what was found, for people or for programs.

pub mod text;

use anyhow::Result;
use serde::Serialize;
use std::io::{self, Write};

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// As one JSON object.
    Json,
    /// As one JSON object in one line.
    JsonLine,
}

/// Writes `what` in a form, as text by `text`. Errors: those of `out`.
pub fn write<T: Serialize>(
    out: &mut dyn Write,
    form: Form,
    what: &T,
    text: impl FnOnce(&mut dyn Write, &T) -> io::Result<()>,
) -> Result<()> {
    match form {
        Form::Text => text(out, what)?,
        Form::Json => serde_json::to_writer_pretty(&mut *out, what)?,
        Form::JsonLine => serde_json::to_writer(&mut *out, what)?,
    }
    if form != Form::Text {
        writeln!(out)?;
    }
    out.flush()?;
    Ok(())
}
