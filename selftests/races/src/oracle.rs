// SPDX-License-Identifier: GPL-2.0

//! Command files of test modules: a command is written, the answer is read.

use crate::file;
use anyhow::{ensure, Context, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Options {
    /// Folder in debugfs, such as rust_testdev-0000:00:03.0
    name: String,
    #[arg(required = true)]
    words: Vec<String>,
}

pub fn run(o: &Options) -> Result<()> {
    println!("{}", Oracle::new(&o.name).run(&o.words.join(" "))?);
    Ok(())
}

/// The file `/sys/kernel/debug/NAME/cmd`. One thread at a time: an answer is the
/// file's, not the writer's.
pub struct Oracle {
    file: PathBuf,
}

impl Oracle {
    pub fn new(name: &str) -> Oracle {
        Oracle {
            file: ["/sys/kernel/debug", name, "cmd"].iter().collect(),
        }
    }

    /// The answer. [`file::errno`] of an error is what the kernel said.
    pub fn run(&self, command: &str) -> Result<String> {
        file::write(&self.file, command)?;
        file::read(&self.file)
    }

    /// The number, decimal or hexadecimal after 0x, that follows `word` in the answer.
    pub fn number(&self, command: &str, word: &str) -> Result<u64> {
        let answer = self.run(command)?;
        number_after(&answer, word).with_context(|| format!("no '{word}' in '{answer}'"))
    }
}

/// The same file, kept open: for many commands.
pub struct Session(File);

impl Session {
    pub fn open(name: &str) -> Result<Session> {
        let file = Oracle::new(name).file;
        let open = OpenOptions::new().read(true).write(true).open(&file);
        let open = open.with_context(|| format!("opening {}", file.display()))?;
        Ok(Session(open))
    }

    /// As [`Oracle::run`].
    pub fn run(&self, command: &str) -> Result<String> {
        let done = (&self.0).write(command.as_bytes());
        let done = done.with_context(|| format!("command '{command}'"))?;
        ensure!(done == command.len(), "command '{command}': cut");
        // From the start, which has the kernel make the text anew.
        let mut answer = [0; 256];
        let length = self.0.read_at(&mut answer, 0)?;
        Ok(std::str::from_utf8(&answer[..length])?.trim_end().into())
    }

    /// The number that follows `word` in an answer, as [`Oracle::number`].
    pub fn number(&self, answer: &str, word: &str) -> Result<u64> {
        number_after(answer, word).with_context(|| format!("no '{word}' in '{answer}'"))
    }
}

fn number_after(answer: &str, word: &str) -> Option<u64> {
    let mut words = answer.split_whitespace();
    words.find(|w| *w == word)?;
    let number = words.next()?;
    match number.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_an_answer() {
        let answer = "handle 12 iova 0xff000";
        assert_eq!(number_after(answer, "handle"), Some(12));
        assert_eq!(number_after(answer, "iova"), Some(0xff000));
        assert_eq!(number_after(answer, "phys"), None);
        assert_eq!(number_after("iova", "iova"), None);
    }
}
